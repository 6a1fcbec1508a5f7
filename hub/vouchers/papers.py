"""Papers that back a month of a grant's spending: invoices once, proofs of payment, delivery.

It leaves the bytes to the artefact store and which papers a claim needs to the rule and `hub.claims`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.periods import month_bounds
from hub.ledger.rules import MAX_AMOUNT_FEN
from hub.organisations.rules import check_uscc
from hub.vouchers.tables import Grant, PaperKind, VoucherPaper


class InvoiceUsedError(ConflictError):
    """The invoice backs another grant's spending already."""

    code = "invoice_used"


def add_paper(
    session: Session,
    actor: Actor,
    grant_id: str,
    *,
    month: str,
    kind: PaperKind,
    name: str,
    digest: str,
    number: str = "",
    issuer_uscc: str = "",
    amount_fen: int | None = None,
    now: datetime,
) -> VoucherPaper:
    """Add a paper (its artefact's digest) for a month such as `2026-11` of an own grant; an operator for any.

    Raises:
        NotFoundError: no such grant, or another firm's.
        InvoiceUsedError: an invoice of this issuer and number stands already, here or elsewhere.
        InvalidValueError: an invoice without number, issuer's credit code or amount; a malformed month.
    """
    grant = _find_grant(session, actor, grant_id)
    month_bounds(month)
    number, issuer_uscc = number.strip(), issuer_uscc.strip().upper()
    if kind is PaperKind.INVOICE:
        _check_invoice(number, amount_fen)
        issuer_uscc = check_uscc(issuer_uscc, production=False)
    paper = VoucherPaper(
        id=new_id("pap"),
        organisation_id=grant.organisation_id,
        grant_id=grant.id,
        month=month,
        kind=kind,
        name=name,
        digest=digest,
        number=number,
        issuer_uscc=issuer_uscc,
        amount_fen=amount_fen,
        added_by=actor.user_id,
        created_at=now,
    )
    _insert(session, paper)
    _record(session, "paper.added", paper, actor, now)
    return paper


def withdraw_paper(session: Session, actor: Actor, paper_id: str, *, now: datetime) -> VoucherPaper:
    """Take a wrong paper out of later claims; claims drafted before keep it. A second time changes nothing."""
    paper = session.get(VoucherPaper, paper_id, with_for_update=True)
    if paper is None:
        raise NotFoundError.of("paper", paper_id)
    _find_grant(session, actor, paper.grant_id)
    if paper.withdrawn_at is None:
        paper.withdrawn_at, paper.withdrawn_by = now, actor.user_id
        _record(session, "paper.withdrawn", paper, actor, now)
    return paper


def list_papers(session: Session, grant_ids: list[str], *, moment: datetime | None = None) -> list[VoucherPaper]:
    """Return the papers of grants that stand, or stood at `moment`, oldest first."""
    query = select(VoucherPaper).where(VoucherPaper.grant_id.in_(grant_ids))
    if moment is None:
        query = query.where(VoucherPaper.withdrawn_at.is_(None))
    else:
        stood = VoucherPaper.withdrawn_at.is_(None) | (VoucherPaper.withdrawn_at > moment)
        query = query.where(VoucherPaper.created_at <= moment, stood)
    return list(session.scalars(query.order_by(VoucherPaper.created_at, VoucherPaper.id)))


def _find_grant(session: Session, actor: Actor, grant_id: str) -> Grant:
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    grant = session.get(Grant, grant_id)
    foreign = grant is not None and grant.organisation_id != actor.organisation_id
    if grant is None or (foreign and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("grant", grant_id)
    return grant


def _check_invoice(number: str, amount_fen: int | None) -> None:
    if not number or amount_fen is None or not 1 <= amount_fen <= MAX_AMOUNT_FEN:
        raise InvalidValueError(
            f"Invoice '{number}' over {amount_fen} fen: give its number, its issuer's credit code and its amount "
            f"(1..{MAX_AMOUNT_FEN} fen).",
            f"发票“{number}”（{amount_fen} 分）信息不全：须有号码、开票方信用代码和金额（1..{MAX_AMOUNT_FEN} 分）。",
            field="amount_fen" if number else "number",
        )


def _insert(session: Session, paper: VoucherPaper) -> None:
    try:
        with session.begin_nested():
            session.add(paper)
    except IntegrityError as error:
        raise InvoiceUsedError(
            f"Invoice '{paper.number}' of {paper.issuer_uscc} backs a voucher already; an invoice counts once.",
            f"开票方 {paper.issuer_uscc} 的发票“{paper.number}”已用于补贴，每张发票只计一次。",
            field="number",
        ) from error


def _record(session: Session, topic: str, paper: VoucherPaper, actor: Actor, now: datetime) -> None:
    record_event(
        session,
        topic,
        paper.id,
        organisation_id=paper.organisation_id,
        actor_id=actor.user_id,
        now=now,
        grant_id=paper.grant_id,
        month=paper.month,
        kind=str(paper.kind),
        digest=paper.digest,
        number=paper.number,
    )
