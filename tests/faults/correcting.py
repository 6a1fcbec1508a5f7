"""The steps after money has moved: calls corrected and billed late, months topped up and closed, debts made and paid.

Each is repeated after a crash as its maker does: look, then ask again. It leaves killing to `boundaries`.
"""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.claims.reporting import issue_report
from hub.claims.service import collect_debts, take_back_redeemed
from hub.errors import ConflictError
from hub.ledger.movements import move
from hub.ledger.service import Posted, find_transfer, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.metering.tables import RejectedUsage
from hub.orders.call_corrections import CallsWanted, bill_late_calls, propose_call_correction
from hub.orders.call_figures import CallFigures, list_late
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.service import close_months
from hub.orders.tables import BillLine, Order
from hub.orders.usage_tables import Allowance
from hub.payouts.debts import read_debt
from hub.payouts.service import earned, request_payout
from hub.payouts.tables import Payout, PayoutState
from tests.faults.claiming import pay_out
from tests.hub.money.market import Market

DECEMBER = timedelta(days=14)
"""From the market's day into the month after it."""
WRONG = "counted wrongly"


def correct_calls(market: Market) -> None:
    """Correct a call that was billed; one that is billed so already needs nothing."""
    with market.sessions.read() as session:
        line_id = _find_line(session).id
    wanted = CallsWanted(WRONG, [CallFigures("req-1", 0, 40_000, 3, 7_777)])
    try:
        with market.sessions.write() as session:
            propose_call_correction(session, market.actors["operator"], line_id, wanted, now=market.now)
    except ConflictError as error:
        _pass_if_done(error)


def bill_late(market: Market) -> None:
    """Take a record that comes after its slice was closed, and bill it."""
    with market.sessions.read() as session:
        slice_id = session.scalars(select(Allowance.id)).one()
        came = session.scalar(select(RejectedUsage.seq))
    if came is None:
        market.send(market.record(slice_id, "req-late", (0, 0, 400_000)), first_seq=3)
    with market.sessions.write() as session:
        late = [(row.gateway_id, row.gateway_epoch, row.seq) for row in list_late(session)]
        if late:
            bill_late_calls(session, market.actors["operator"], late, reason="came late", now=market.now)


def top_up(market: Market) -> None:
    """Close the month of calls: the voucher's share of what came late is paid back in cash."""
    with market.sessions.write() as session:
        close_months(session, market.now + DECEMBER)
    with market.sessions.read() as session:
        line = _find_line(session)
        assert line.subsidised_fen == line.posted_fen * line.share_num // line.share_den > 0


def take_back_pay(market: Market) -> None:
    """Refund an order by the provider's fault, whose pay is paid out already: the provider owes it."""
    _correct_order(market, "city", Wanted(WRONG, fault="provider"))
    with market.sessions.read() as session:
        paid = session.scalar(select(Payout.id).where(Payout.idempotency_key == "pay-2"))
        assert paid is not None or read_debt(session, market.owner("provider")) > 0


def net(market: Market) -> None:
    """Pay out what the provider earned since, less what it owes."""
    with market.sessions.write() as session:
        provider = market.actors["provider"]
        known = session.scalar(select(Payout.amount_fen).where(Payout.idempotency_key == "pay-2"))
        amount = known or earned(session, provider.organisation_id)[0]
        request_payout(session, provider, amount_fen=amount, idempotency_key="pay-2", now=market.now)
    with market.sessions.read() as session:
        row = session.scalars(select(Payout).where(Payout.idempotency_key == "pay-2")).one()
        assert row.netted_fen > 0
    if row.state is not PayoutState.NETTED:
        pay_out(market, "pay-2", "bank-78")


def owe(market: Market) -> None:
    """Lower a fee that was redeemed, when the firm has no cash left: what is taken back is a debt."""
    _correct_order(market, "prepaid", Wanted(WRONG, metered={"device_ms": 3_600_000, "trained_tokens": 1}))
    with market.sessions.write() as session:
        if find_transfer(session, "tra_gone") is None:
            _withdraw_all(session, market)
    with market.sessions.write() as session:
        take_back_redeemed(session, market.now)
    with market.sessions.read() as session:
        assert read_debt(session, market.owner("factory"), subject="redeemed") > 0


def repay(market: Market) -> None:
    """Collect the debt out of what the firm pays in."""
    market.fund("factory", 20_000, "bank-2")
    with market.sessions.write() as session:
        collect_debts(session, market.now)
    with market.sessions.read() as session:
        assert read_debt(session, market.owner("factory"), subject="redeemed") == 0


def close_books(market: Market) -> None:
    """Issue the month's report, which closes the month for good."""
    with market.sessions.write() as session:
        issue_report(session, market.actors["operator"], "2026-11", now=market.now + DECEMBER)


def correct_closed(market: Market) -> None:
    """Correct a bill of the closed month; the difference is posted in the open one."""
    _correct_order(market, "prepaid", Wanted(WRONG, metered={"device_ms": 1, "trained_tokens": 1}), days=DECEMBER)
    with market.sessions.write() as session:
        take_back_redeemed(session, market.now + DECEMBER)


def _find_line(session: Session) -> BillLine:
    return session.scalars(select(BillLine).where(BillLine.rule_version_id.is_not(None))).one()


def _correct_order(market: Market, key: str, wanted: Wanted, *, days: timedelta = timedelta()) -> None:
    try:
        with market.sessions.write() as session:
            order = session.scalars(select(Order).where(Order.idempotency_key == key)).one()
            propose_correction(session, market.actors["operator"], order.id, wanted, now=market.now + days)
    except ConflictError as error:
        _pass_if_done(error)


def _pass_if_done(error: ConflictError) -> None:
    if "billed so already" not in error.en:
        raise error


def _withdraw_all(session: Session, market: Market) -> None:
    purse = open_account(session, organisation_id=market.owner("factory"), kind=AccountKind.FIRM_CASH, now=market.now)
    bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=market.now)
    gone = move("tra_gone", purse, bank, amount_fen=purse.available_fen, code="withdrawn")
    post_group(session, "grp_gone", [gone], Posted("test", "t", "usr_1", market.now))
