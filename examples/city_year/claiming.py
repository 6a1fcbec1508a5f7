"""The paper side of vouchers, month by month: invoices, redemptions of what was paid first, claims and their payment.

It leaves trading to `trade` and the worker's steps to `chores`.
"""

from functools import partial
from io import BytesIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from examples.city_year.city import City
from hub.actor import Actor
from hub.claims import service as claims
from hub.claims.rules import NothingToClaimError
from hub.claims.tables import RedemptionLine
from hub.errors import ConflictError, InvalidValueError
from hub.orders.call_corrections import CallsWanted, propose_call_correction
from hub.orders.call_figures import CallFigures
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Charge, Order, RatedUsage
from hub.organisations.rules import make_demo_uscc
from hub.vouchers.papers import add_paper
from hub.vouchers.rules import read_body
from hub.vouchers.tables import Grant, GrantState, PaperKind, RuleVersion
from registry.store import FolderStore

CLAIMED = ("model", "compute")


def add_papers(city: City, month: str) -> None:
    """Give grants of firms that were charged in a month their invoice and proof of payment; one in twenty forgets."""
    with city.clock.sessions.read() as session:
        charged = set(session.scalars(select(Charge.organisation_id).where(Charge.month == month)))
        grants = _in_order(city, [row for row in session.scalars(select(Grant)) if row.organisation_id in charged])
    actors = {firm.actor.organisation_id: firm.actor for firm in city.firms}
    for number, grant in enumerate(grants):
        if city.rng.random() < 0.95:
            with city.clock.sessions.write() as session:
                _add(session, city, actors[grant.organisation_id], grant, month, number)
            city.clock.done["papers"] += 1


def redeem_month(city: City, month: str) -> None:
    """Redeem a month's charges with grants that pay after the fact: asked, checked and paid by three persons."""
    actors = {firm.actor.organisation_id: firm.actor for firm in city.firms}
    for grant in _list_reimbursing(city):
        with city.clock.sessions.write() as session:
            rows = claims.list_redeemable(session, session.get_one(Grant, grant.id))
            names = [row.id for row in rows if {portion.charge.month for portion in row.portions} == {month}]
            if not names:
                continue
            try:
                _redeem(session, city, actors[grant.organisation_id], grant.id, names)
            except (InvalidValueError, ConflictError) as error:
                city.clock.refused[error.code] += 1
                session.rollback()
                continue
        city.clock.done["redeemed"] += 1


def correct_redeemed(city: City, count: int = 6) -> None:
    """Correct some fees that were redeemed already: the worker then takes the voucher's share of them back."""
    with city.clock.sessions.read() as session:
        query = select(Charge).join(RedemptionLine, RedemptionLine.redeemed_charge_id == Charge.id)
        found = session.scalars(
            query.where(Charge.version == 1).order_by(Charge.meter, Charge.charged_at, Charge.fee_fen)
        ).all()
    calls = [charge for charge in found if charge.bill_line_id][:count]
    for charge in calls + [charge for charge in found if charge.order_id][:count]:
        city.clock.act("redeemed fee corrected", partial(_correct, city=city, charge=charge))


def _correct(session: Session, city: City, charge: Charge) -> None:
    now = city.clock.now
    if charge.bill_line_id is not None:
        query = select(RatedUsage.request_id).where(RatedUsage.tranche_id == charge.tranche_id)
        calls = [CallFigures(name, 0, 0, 0, 0) for name in session.scalars(query.order_by(RatedUsage.request_id))]
        wanted = CallsWanted("the engine answered nonsense", calls, "provider")
        propose_call_correction(session, city.operator, charge.bill_line_id, wanted, now=now)
        return
    order = session.get_one(Order, charge.order_id)
    metered = {name: (order.metered or {})[name] // 2 for name in ("device_ms", "trained_tokens")}
    propose_correction(session, city.operator, order.id, Wanted("meter read again", metered), now=now)


def claim_month(city: City, month: str) -> None:
    """Claim both programmes up to a month: drafted by one, submitted with its pack by another, paid, reconciled.

    One claim in eight is withdrawn and drafted again; the authority pays a fen less now and then, and says why.
    """
    for programme in CLAIMED:
        try:
            claim_id = _draft(city, programme, month)
            if city.rng.random() < 0.125:
                with city.clock.sessions.write() as session:
                    claims.withdraw_claim(session, city.checker, claim_id, reason="simulated", now=city.clock.now)
                claim_id = _draft(city, programme, month)
        except NothingToClaimError as error:
            city.clock.refused[error.code] += 1
            continue
        _submit_and_pay(city, claim_id)
        city.clock.done["claimed"] += 1


def _add(session: Session, city: City, actor: Actor, grant: Grant, month: str, number: int) -> None:
    for kind in (PaperKind.INVOICE, PaperKind.PAYMENT):
        invoice = kind is PaperKind.INVOICE
        add_paper(
            session,
            actor,
            grant.id,
            month=month,
            kind=kind,
            name=f"{kind}.pdf",
            digest="f" * 64,
            number=f"{month}-{number}" if invoice else "",
            issuer_uscc=make_demo_uscc(0) if invoice else "",
            amount_fen=grant.amount_fen if invoice else None,
            now=city.clock.now,
        )


def _list_reimbursing(city: City) -> list[Grant]:
    with city.clock.sessions.read() as session:
        rows = session.execute(
            select(Grant, RuleVersion)
            .join(RuleVersion, RuleVersion.id == Grant.rule_version_id)
            .where(Grant.state == GrantState.ACTIVE)
        )
        return _in_order(city, [grant for grant, version in rows if read_body(version.body).mode == "reimburse"])


def _in_order(city: City, grants: list[Grant]) -> list[Grant]:
    """Return grants in an order that ids, which are drawn anew each time, have no part in."""
    serials = {firm.actor.organisation_id: firm.serial for firm in city.firms}
    return sorted(grants, key=lambda grant: (serials[grant.organisation_id], grant.created_at, grant.amount_fen))


def _redeem(session: Session, city: City, firm: Actor, grant_id: str, names: list[str]) -> None:
    now = city.clock.now
    redemption = claims.request_redemption(session, firm, grant_id, charge_ids=names, now=now)
    for officer, decision in ((city.checker, "check"), (city.approver, "approve")):
        claims.review_redemption(session, officer, redemption.id, decision=decision, reason="", now=now)


def _draft(city: City, programme: str, month: str) -> str:
    now = city.clock.now
    with city.clock.sessions.read() as session:
        plan = claims.plan_claim(session, city.checker, programme=programme, period=month, now=now)
    with city.clock.sessions.write() as session:
        return claims.place_claim(session, city.checker, plan, now=now).id


def _submit_and_pay(city: City, claim_id: str) -> None:
    now, less = city.clock.now, 1 if city.rng.random() < 0.1 else 0
    store = FolderStore(city.home / "artifacts")
    with city.clock.sessions.read() as session:
        claim = claims.find_claim(session, city.checker, claim_id)
        digest = claims.write_pack(session, store, claim, BytesIO())
    with city.clock.sessions.write() as session:
        claim = claims.submit_claim(session, city.approver, claim_id, pack_sha256=digest, now=now)
        paid = claim.amount_fen - (less if claim.amount_fen > 1 else 0)
        claims.record_payment(session, city.operator, claim_id, paid_fen=paid, reference=f"bank-{claim_id}", now=now)
        reason = "the authority rounded" if paid != claim.amount_fen else ""
        claims.reconcile_claim(session, city.operator, claim_id, reason=reason, now=now)
