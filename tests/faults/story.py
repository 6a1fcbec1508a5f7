"""The steps of money from deposit to payout, each as its maker repeats it after a crash: look, then ask again.

Every step finds what it needs in the database, so that it can begin anywhere. It leaves killing to `boundaries`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from hub.audit.chain import chain_outboxes
from hub.errors import ConflictError
from hub.ledger.tables import Account, Transfer
from hub.orders import service as orders
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Allowance, Order, Quote, QuoteState
from hub.tables import metadata
from hub.vouchers import service as vouchers
from hub.vouchers.tables import Application
from tests.faults.claiming import claim, payout, prepay, promise, redeem, revoke
from tests.faults.correcting import (
    bill_late,
    close_books,
    correct_calls,
    correct_closed,
    net,
    owe,
    repay,
    take_back_pay,
    top_up,
)
from tests.faults.renting import abandon, finish, heartbeat, offer, start, sweep
from tests.hub.money.market import PAPER, Market

HOUR_MS = 3_600_000
Step = Callable[[Market], object]


def deposit(market: Market) -> None:
    """Book money that came in."""
    market.fund("factory", 50_000, "bank-1")


def apply(market: Market) -> None:
    """Apply for both vouchers; a contract that has its application already needs none."""
    for programme, amount in (("model", 30_000), ("compute", 20_000)):
        try:
            with market.sessions.write() as session:
                vouchers.apply_for_voucher(
                    session,
                    market.actors["factory"],
                    programme=programme,
                    asked_fen=amount,
                    contract_no="HT",
                    evidence=[PAPER],
                    now=market.now,
                )
        except ConflictError:
            continue


def award(market: Market) -> None:
    """Check and approve what is waiting."""
    for who, decision, state in (("checker", "check", "submitted"), ("approver", "approve", "checked")):
        with market.sessions.read() as session:
            waiting = list(session.scalars(select(Application.id).where(Application.state == state)))
        for application_id in sorted(waiting):
            with market.sessions.write() as session:
                market.review(session, application_id, who, decision)


def quote(market: Market) -> None:
    """Ask for two quotes; one asked for again is one more that nobody accepts."""
    market.quote()
    market.quote(offer="private", trained_tokens=500_000)


def reserve(market: Market) -> None:
    """Accept the newest quote of each offer under a key of its own."""
    for key in ("city", "private"):
        with market.sessions.write() as session:
            known = session.scalar(select(Order.quote_id).where(Order.idempotency_key == key))
            newest = select(Quote.id).where(Quote.offer_id == f"off_{key}", Quote.state == QuoteState.OPEN)
            chosen = known or session.scalars(newest.order_by(Quote.id.desc())).first()
            orders.accept_quote(session, market.actors["factory"], chosen or "", idempotency_key=key, now=market.now)


def draw(market: Market) -> None:
    """Draw a slice of money for calls."""
    market.draw("slice-1")


def use(market: Market) -> None:
    """Send usage; whatever was stored before counts once."""
    market.send(market.record(_slice(market).id, "req-1", (90_001, 3, 7_777)), first_seq=1)
    market.send(market.record(_slice(market).id, "req-2", (12_345, 0, 4_001), filed=False), first_seq=2)


def release(market: Market) -> None:
    """Give the slice back and resolve its tranche: what was not used is released."""
    market.close(_slice(market).id, through_seq=2)
    market.settle()


def settle(market: Market) -> None:
    """Settle the first order on its meter."""
    with market.sessions.write() as session:
        metered = {"device_ms": HOUR_MS // 2, "trained_tokens": 999_999}
        orders.settle_order(session, _order(session, "city").id, metered=metered, now=market.now)


def refund(market: Market) -> None:
    """Refund the second order: the platform's fault."""
    with market.sessions.write() as session:
        order = _order(session, "private")
        metered = {"elapsed_device_ms": HOUR_MS}
        orders.refund_order(session, order.id, fault="platform", reason_code="x", metered=metered, now=market.now)


def correct(market: Market) -> None:
    """Correct the settled order; one that is billed so already needs nothing."""
    wanted = Wanted(reason="counted twice", metered={"device_ms": HOUR_MS // 4, "trained_tokens": 999_999})
    try:
        with market.sessions.write() as session:
            propose_correction(session, market.actors["operator"], _order(session, "city").id, wanted, now=market.now)
    except ConflictError as error:
        if "billed so already" not in error.en:
            raise


def chain(market: Market) -> None:
    """Make links, a few at a time."""
    for _ in range(100):
        with market.sessions.write() as session:
            if not chain_outboxes(session, limit=40):
                break


STEPS: tuple[Step, ...] = (
    deposit,
    apply,
    award,
    offer,
    quote,
    reserve,
    start,
    heartbeat,
    draw,
    use,
    release,
    settle,
    refund,
    finish,
    abandon,
    sweep,
    correct,
    correct_calls,
    bill_late,
    top_up,
    claim,
    payout,
    take_back_pay,
    promise,
    prepay,
    redeem,
    net,
    owe,
    repay,
    revoke,
    close_books,
    correct_closed,
    chain,
)
COUNTED = (
    "allowances",
    "authority_reports",
    "bill_lines",
    "bill_versions",
    "call_corrections",
    "charge_parts",
    "charges",
    "claim_lines",
    "claims",
    "ledger_closed_months",
    "ledger_hold_leases",
    "orders",
    "payout_steps",
    "payouts",
    "rated_usage",
    "rejected_usage",
    "redemption_claw_backs",
    "redemption_lines",
    "redemptions",
    "rental_meters",
    "rentals",
    "usage_records",
    "usage_tranches",
    "voucher_applications",
    "voucher_claw_backs",
    "voucher_grants",
    "voucher_papers",
    "voucher_reviews",
)
"""Tables whose rows a repeat must not add to; a quote asked for again is one more that nobody accepts."""


@dataclass(frozen=True)
class Outcome:
    """What a step has led to, whatever ids accounts, orders and transfers got."""

    balances: dict[tuple[str, str, str], list[int]]
    postings: dict[tuple[str, ...], int]
    rows: dict[str, int]


def read_outcome(market: Market) -> Outcome:
    """Return balances, what was posted between which kinds of accounts how often, and the number of rows."""
    debit, credit = aliased(Account), aliased(Account)
    seen = (Transfer.kind, Transfer.code, debit.kind, credit.kind, Transfer.amount_fen)
    query = select(*seen, func.count()).join(debit, debit.id == Transfer.debit_id)
    with market.sessions.read() as session:
        found = session.execute(query.join(credit, credit.id == Transfer.credit_id).group_by(*seen))
        postings = {tuple(map(str, row[:-1])): int(row[-1]) for row in found}
        rows = {name: session.scalar(select(func.count()).select_from(metadata.tables[name])) or 0 for name in COUNTED}
    return Outcome(read_balances(market), postings, rows)


def read_balances(market: Market) -> dict[tuple[str, str, str], list[int]]:
    """Return the four sides by owner, kind and period, whatever ids the accounts and orders got."""
    sides = (Account.debits_pending, Account.debits_posted, Account.credits_pending, Account.credits_posted)
    with market.sessions.read() as session:
        rows = session.execute(
            select(
                Account.organisation_id, Account.kind, Account.period_key, *(func.sum(side) for side in sides)
            ).group_by(Account.organisation_id, Account.kind, Account.period_key)
        )
        # An account without a movement is as good as none.
        return {(row[0], str(row[1]), row[2]): [int(side) for side in row[3:]] for row in rows if any(row[3:])}


def _slice(market: Market) -> Allowance:
    with market.sessions.read() as session:
        return session.scalars(select(Allowance)).one()


def _order(session: Session, key: str) -> Order:
    return session.scalars(select(Order).where(Order.idempotency_key == key)).one()
