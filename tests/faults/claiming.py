"""The steps from settled vouchers to money that leaves: claims, redemption after payment, payouts, revocation.

Each is repeated after a crash as its maker does: look, then ask again. It leaves killing to `boundaries`.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.claims.service import (
    draft_claim,
    list_claims,
    list_redeemable,
    list_redemptions,
    record_payment,
    request_redemption,
    review_redemption,
    submit_claim,
)
from hub.filings.service import withdraw_filing
from hub.filings.tables import Filing
from hub.orders import service as orders
from hub.orders.tables import Order
from hub.organisations.rules import make_demo_uscc
from hub.payouts.service import conclude_payout, earned, request_payout, send_payout
from hub.payouts.tables import Payout, PayoutState
from hub.vouchers import service as vouchers
from hub.vouchers.papers import add_paper, list_papers
from hub.vouchers.tables import Application, Grant, PaperKind
from tests.hub.money.market import Market
from tests.hub.vouchers.steps import put_in_force

HOUR_MS = 3_600_000
CONTRACT = "R"
"""The contract whose voucher pays afterwards."""


def claim(market: Market) -> None:
    """Hand in the invoice, draft, submit and be paid the claim of the compute voucher."""
    with market.sessions.write() as session:
        if not list_claims(session, market.actors["operator"]):
            grant = session.scalars(select(Grant).order_by(Grant.amount_fen)).first()
            add_papers(session, market, grant.id if grant else "", "F-1")
            draft_claim(session, market.actors["checker"], programme="compute", period="2026-11", now=market.now)
    with market.sessions.read() as session:
        drafted = [row.id for row in list_claims(session, market.actors["operator"]) if row.state == "drafted"]
    for claim_id in drafted:
        submit(market, claim_id, "approver")
    with market.sessions.write() as session:
        for row in list_claims(session, market.actors["operator"]):
            if row.state == "submitted":
                _pay(session, market, row.id)


def promise(market: Market) -> None:
    """Change the model voucher to one that pays afterwards, and award one for another contract."""
    with market.sessions.read() as session:
        rule = vouchers.rule_of_day(session, vouchers.find_programme(session, "model").id, market.now)
        awarded = session.scalar(select(Application.id).where(Application.contract_no == CONTRACT))
    if rule is not None and rule.body["mode"] != "reimburse":
        put_in_force(market, "model", mode="reimburse", share={"num": 1, "den": 3})
    if awarded is None:
        market.award("model", 7_000, contract_no=CONTRACT)


def prepay(market: Market) -> None:
    """Buy in full, settled on the meter."""
    with market.sessions.write() as session:
        known = session.scalars(select(Order).where(Order.idempotency_key == "prepaid")).first()
    quote_id = known.quote_id if known else market.quote(offer="private").id
    with market.sessions.write() as session:
        order = orders.accept_quote(
            session, market.actors["factory"], quote_id, idempotency_key="prepaid", now=market.now
        )
    with market.sessions.write() as session:
        metered = {"device_ms": HOUR_MS, "trained_tokens": 1_000_000}
        orders.settle_order(session, order.id, metered=metered, now=market.now)


def redeem(market: Market) -> None:
    """Hand in papers, ask for the share back, and have two persons pay it."""
    with market.sessions.write() as session:
        grant = find_promised(session)
        if not list_papers(session, [grant.id]):
            add_papers(session, market, grant.id, "F-2")
    with market.sessions.write() as session:
        charges = [row.id for row in list_redeemable(session, grant)]
        if not list_redemptions(session, market.actors["factory"]):
            request_redemption(session, market.actors["factory"], grant.id, charge_ids=charges, now=market.now)
    for state, who, decision in (("requested", "checker", "check"), ("checked", "approver", "approve")):
        with market.sessions.write() as session:
            for row in list_redemptions(session, market.actors["operator"]):
                if row.state == state:
                    review_redemption(session, market.actors[who], row.id, decision=decision, reason="", now=market.now)


def payout(market: Market) -> None:
    """Pay out what the provider earned."""
    with market.sessions.write() as session:
        known = session.scalar(select(Payout.amount_fen).where(Payout.idempotency_key == "pay-1"))
        provider = market.actors["provider"]
        amount = known or earned(session, provider.organisation_id)[0]
        request_payout(session, provider, amount_fen=amount, idempotency_key="pay-1", now=market.now)
    pay_out(market, "pay-1", "bank-77")


def revoke(market: Market) -> None:
    """Withdraw the filing and end the model grant; what is left of it goes back to its fund."""
    with market.sessions.write() as session:
        filing = session.scalars(select(Filing)).one()
        withdraw_filing(session, market.actors["operator"], filing.id, reason="x", now=market.now)
        grant = session.scalars(select(Grant).order_by(Grant.amount_fen.desc())).first()
        if grant is not None and grant.state == "active":
            vouchers.revoke_grant(session, market.actors["operator"], grant.id, reason="x", now=market.now)


def pay_out(market: Market, key: str, reference: str) -> None:
    """Send a payout that was asked for under this key, and enter that it was paid."""
    asked = select(Payout).where(Payout.idempotency_key == key)
    with market.sessions.write() as session:
        row = session.scalars(asked).one()
        if row.state is PayoutState.REQUESTED:
            send_payout(session, market.actors["operator"], row.id, now=market.now)
    with market.sessions.write() as session:
        row = session.scalars(asked).one()
        paid, operator = PayoutState.PAID, market.actors["operator"]
        conclude_payout(session, operator, row.id, result=paid, bank_reference=reference, now=market.now)


def submit(market: Market, claim_id: str, who: str) -> None:
    """Hand a claim in as this person."""
    with market.sessions.write() as session:
        submit_claim(session, market.actors[who], claim_id, pack_sha256="a" * 64, now=market.now)


def find_promised(session: Session) -> Grant:
    """Return the grant of the contract that is paid back afterwards."""
    query = select(Grant).join(Application, Application.id == Grant.application_id)
    return session.scalars(query.where(Application.contract_no == CONTRACT)).one()


def _pay(session: Session, market: Market, claim_id: str) -> None:
    amount = next(row.amount_fen for row in list_claims(session, market.actors["operator"]) if row.id == claim_id)
    record_payment(session, market.actors["operator"], claim_id, paid_fen=amount, reference="TR-1", now=market.now)


def add_papers(session: Session, market: Market, grant_id: str, invoice: str) -> None:
    """Hand in an invoice of this number and the proof of its payment."""
    for kind, number in ((PaperKind.INVOICE, invoice), (PaperKind.PAYMENT, f"P-{invoice}")):
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
