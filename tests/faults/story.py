"""The steps of money from deposit to payout, each as its maker repeats it after a crash: look, then ask again.

Every step finds what it needs in the database, so that it can begin anywhere. It leaves killing to `boundaries`.
"""

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.audit.chain import chain_outboxes
from hub.claims.service import draft_claim, list_claims, record_payment, submit_claim
from hub.errors import ConflictError
from hub.filings.service import withdraw_filing
from hub.filings.tables import Filing
from hub.ledger.tables import Account
from hub.orders import service as orders
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Allowance, Order, Quote, QuoteState
from hub.organisations.rules import make_demo_uscc
from hub.payouts.service import conclude_payout, earned, request_payout, send_payout
from hub.payouts.tables import Payout, PayoutState
from hub.vouchers import service as vouchers
from hub.vouchers.papers import add_paper
from hub.vouchers.tables import Application, Grant, PaperKind
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


def accept(market: Market) -> None:
    """Accept the newest quote of each offer under a key of its own."""
    for offer in ("city", "private"):
        with market.sessions.write() as session:
            known = session.scalar(select(Order.quote_id).where(Order.idempotency_key == offer))
            newest = select(Quote.id).where(Quote.offer_id == f"off_{offer}", Quote.state == QuoteState.OPEN)
            chosen = known or session.scalars(newest.order_by(Quote.id.desc())).first()
            orders.accept_quote(session, market.actors["factory"], chosen or "", idempotency_key=offer, now=market.now)


def draw(market: Market) -> None:
    """Draw a slice of money for calls."""
    market.draw("slice-1")


def use(market: Market) -> None:
    """Send usage; whatever was stored before counts once."""
    market.send(market.record(_slice(market).id, "req-1", (90_001, 3, 7_777)), first_seq=1)
    market.send(market.record(_slice(market).id, "req-2", (12_345, 0, 4_001), filed=False), first_seq=2)


def close(market: Market) -> None:
    """Give the slice back and resolve its tranche."""
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


def claim(market: Market) -> None:
    """Hand in the invoice, draft, submit and be paid the claim of the compute voucher."""
    with market.sessions.write() as session:
        if not list_claims(session, market.actors["operator"]):
            grant = session.scalars(select(Grant).order_by(Grant.amount_fen)).first()
            _add_invoice(session, market, grant.id if grant else "")
            draft_claim(session, market.actors["checker"], programme="compute", period="2026-11", now=market.now)
    for state, act in (("drafted", _submit), ("submitted", _pay)):
        with market.sessions.write() as session:
            for row in list_claims(session, market.actors["operator"]):
                if row.state == state:
                    act(session, market, row.id)


def payout(market: Market) -> None:
    """Pay out what the provider earned."""
    with market.sessions.write() as session:
        known = session.scalar(select(Payout.amount_fen))
        provider = market.actors["provider"]
        amount = known or earned(session, provider.organisation_id)[0]
        request_payout(session, provider, amount_fen=amount, idempotency_key="pay-1", now=market.now)
    with market.sessions.write() as session:
        row = session.scalars(select(Payout)).one()
        if row.state is PayoutState.REQUESTED:
            send_payout(session, market.actors["operator"], row.id, now=market.now)
    with market.sessions.write() as session:
        row = session.scalars(select(Payout)).one()
        conclude_payout(
            session,
            market.actors["operator"],
            row.id,
            result=PayoutState.PAID,
            bank_reference="bank-77",
            now=market.now,
        )


def revoke(market: Market) -> None:
    """Withdraw the filing and end the model grant; what is left of it goes back to its fund."""
    with market.sessions.write() as session:
        filing = session.scalars(select(Filing)).one()
        withdraw_filing(session, market.actors["operator"], filing.id, reason="x", now=market.now)
        grant = session.scalars(select(Grant).order_by(Grant.amount_fen.desc())).first()
        if grant is not None and grant.state == "active":
            vouchers.revoke_grant(session, market.actors["operator"], grant.id, reason="x", now=market.now)


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
    quote,
    accept,
    draw,
    use,
    close,
    settle,
    refund,
    correct,
    claim,
    payout,
    revoke,
    chain,
)


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


def _submit(session: Session, market: Market, claim_id: str) -> None:
    submit_claim(session, market.actors["approver"], claim_id, pack_sha256="a" * 64, now=market.now)


def _pay(session: Session, market: Market, claim_id: str) -> None:
    amount = next(row.amount_fen for row in list_claims(session, market.actors["operator"]) if row.id == claim_id)
    record_payment(session, market.actors["operator"], claim_id, paid_fen=amount, reference="TR-1", now=market.now)


def _add_invoice(session: Session, market: Market, grant_id: str) -> None:
    for kind, number in ((PaperKind.INVOICE, "F-1"), (PaperKind.PAYMENT, "P-1")):
        add_paper(
            session,
            market.actors["factory"],
            grant_id,
            month="2026-11",
            kind=kind,
            name="paper.pdf",
            digest="f" * 64,
            number=number,
            issuer_uscc=make_demo_uscc(2),
            amount_fen=601,
            now=market.now,
        )
