"""The figures of the authority report: per programme and firm, what happened in a period and where it stood at its end.

Everything is counted from rows that never change and carry their time, so a period that is closed always gives the
same figures. It leaves the report's bytes and its issue to `reporting`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from hub.claims.evidence import list_funds
from hub.claims.tables import Claim, ClaimLine, ClaimState
from hub.events.tables import Event
from hub.ledger.tables import PLATFORM, Account, AccountKind, Entry, Transfer, TransferKind
from hub.organisations.tables import Organisation
from hub.vouchers.tables import Application, Decision, Grant, Programme, VoucherReview


class FirmFigures(TypedDict):
    """What a firm did with a programme in a period, and where it stood at its end."""

    applied: int
    applied_fen: int
    refused: int
    awarded_fen: int
    returned_fen: int
    used_fen: int
    taken_back_fen: int
    claimed_fen: int
    held_at_end_fen: int
    left_at_end_fen: int


class FundFigures(TypedDict):
    """What became of a programme's fund in a period, and where it stood at its end."""

    released_fen: int
    paid_by_authority_fen: int
    fund_left_at_end_fen: int
    owed_by_authority_at_end_fen: int


FIRM_FIGURES = tuple(FirmFigures.__annotations__)
FUND_FIGURES = tuple(FundFigures.__annotations__)


@dataclass
class ProgrammeFigures:
    """One programme's figures: `firms` by credit code, and the fund's."""

    programme: Programme
    firms: dict[str, dict[str, int]] = field(default_factory=dict)
    fund: dict[str, int] = field(default_factory=dict)


def count_figures(session: Session, start: datetime, end: datetime) -> list[ProgrammeFigures]:
    """Return the figures of every programme by code; firms without any figure are left out."""
    codes = {row.id: row.uscc for row in session.scalars(select(Organisation))}
    return [
        _count_programme(session, programme, codes, start, end)
        for programme in session.scalars(select(Programme).where(Programme.created_at < end).order_by(Programme.code))
    ]


def _count_programme(
    session: Session, programme: Programme, codes: dict[str, str], start: datetime, end: datetime
) -> ProgrammeFigures:
    firms: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(FIRM_FIGURES, 0))
    for counted in (
        _count_applications(session, programme.id, start, end),
        _count_money(session, programme.id, start, end),
        _count_claims(session, programme.id, start, end),
        _count_standing(session, programme.id, end),
    ):
        for organisation_id, name, amount in counted:
            firms[codes[organisation_id]][name] += amount
    found = {code: firms[code] for code in sorted(firms) if any(firms[code].values())}
    return ProgrammeFigures(programme, found, _count_fund(session, programme.id, start, end))


_Counted = Iterable[tuple[str, str, int]]


def _count_applications(session: Session, programme_id: str, start: datetime, end: datetime) -> _Counted:
    # By event, because an application may ask for another amount when it is completed later.
    submitted = (
        select(Event)
        .join(Application, Application.id == Event.subject)
        .where(
            Application.programme_id == programme_id,
            Event.topic == "application.submitted",
            Event.occurred_at >= start,
            Event.occurred_at < end,
        )
    )
    for event in session.scalars(submitted):
        yield event.organisation_id, "applied", 1
        yield event.organisation_id, "applied_fen", event.payload["asked_fen"]
    refused = (
        select(VoucherReview.organisation_id)
        .join(Application, Application.id == VoucherReview.application_id)
        .where(
            Application.programme_id == programme_id,
            VoucherReview.decision == Decision.REFUSE,
            VoucherReview.created_at >= start,
            VoucherReview.created_at < end,
        )
    )
    for organisation_id in session.scalars(refused):
        yield organisation_id, "refused", 1


def _count_money(session: Session, programme_id: str, start: datetime, end: datetime) -> _Counted:
    query = (
        select(Transfer, Grant)
        .join(Grant, or_(Grant.account_id == Transfer.debit_id, Grant.account_id == Transfer.credit_id))
        .where(
            Grant.programme_id == programme_id,
            Transfer.kind.in_((TransferKind.SINGLE, TransferKind.POST)),
            Transfer.event_at >= start,
            Transfer.event_at < end,
        )
    )
    funds = list_funds(session, programme_id)
    for transfer, grant in session.execute(query):
        if transfer.debit_id in funds:
            yield grant.organisation_id, "awarded_fen", transfer.amount_fen
        elif transfer.credit_id in funds:
            yield grant.organisation_id, "returned_fen", transfer.amount_fen
        elif transfer.debit_id == grant.account_id:
            yield grant.organisation_id, "used_fen", transfer.amount_fen
        else:
            yield grant.organisation_id, "taken_back_fen", transfer.amount_fen


def _count_claims(session: Session, programme_id: str, start: datetime, end: datetime) -> _Counted:
    """Yield what was handed in and, negative, what was refused: each in its own period, so that no other changes."""
    handed_in = (Claim.submitted_at >= start, Claim.submitted_at < end)
    refused = (Claim.state == ClaimState.REFUSED, Claim.ended_at >= start, Claim.ended_at < end)
    for sign, which in ((1, handed_in), (-1, refused)):
        query = select(ClaimLine).join(Claim, Claim.id == ClaimLine.claim_id)
        for line in session.scalars(query.where(Claim.programme_id == programme_id, *which)):
            yield line.organisation_id, "claimed_fen", sign * line.amount_fen


def _count_standing(session: Session, programme_id: str, end: datetime) -> _Counted:
    """Yield what each grant held and had left at an instant, by the last entry of its account before it."""
    last = (
        select(Entry.account_id, func.max(Entry.account_version).label("version"))
        .join(Transfer, Transfer.id == Entry.transfer_id)
        .where(Transfer.event_at < end)
        .group_by(Entry.account_id)
        .subquery()
    )
    query = (
        select(Grant.organisation_id, Entry)
        .join(Entry, Entry.account_id == Grant.account_id)
        .join(last, (last.c.account_id == Entry.account_id) & (last.c.version == Entry.account_version))
        .where(Grant.programme_id == programme_id)
    )
    for organisation_id, entry in session.execute(query):
        yield organisation_id, "held_at_end_fen", entry.debits_pending
        left = entry.credits_posted - entry.debits_posted - entry.debits_pending
        yield organisation_id, "left_at_end_fen", left


def _count_fund(session: Session, programme_id: str, start: datetime, end: datetime) -> dict[str, int]:
    fund = _balance_at(session, AccountKind.PROGRAMME_FUND, programme_id, end)
    owed = -_balance_at(session, AccountKind.APPROPRIATION, programme_id, end)
    released = _sum_transfers(session, programme_id, "fund_released", start, end)
    return dict(zip(FUND_FIGURES, (released, _sum_paid(session, programme_id, start, end), fund, owed), strict=True))


def _sum_paid(session: Session, programme_id: str, start: datetime, end: datetime) -> int:
    query = select(func.coalesce(func.sum(Claim.paid_fen), 0)).where(
        Claim.programme_id == programme_id, Claim.paid_at >= start, Claim.paid_at < end
    )
    return int(session.scalar(query) or 0)


def _sum_transfers(session: Session, programme_id: str, code: str, start: datetime, end: datetime) -> int:
    query = (
        select(func.coalesce(func.sum(Transfer.amount_fen), 0))
        .join(Account, Account.id == Transfer.credit_id)
        .where(
            Account.organisation_id == PLATFORM,
            Account.subject == programme_id,
            Transfer.code == code,
            Transfer.event_at >= start,
            Transfer.event_at < end,
        )
    )
    return int(session.scalar(query) or 0)


def _balance_at(session: Session, kind: AccountKind, subject: str, end: datetime) -> int:
    """Return posted credits minus posted debits of what happened before an instant."""
    amount = case((Transfer.credit_id == Account.id, Transfer.amount_fen), else_=-Transfer.amount_fen)
    query = (
        select(func.coalesce(func.sum(amount), 0))
        .select_from(Account)
        .join(Transfer, or_(Transfer.credit_id == Account.id, Transfer.debit_id == Account.id))
        .where(
            Account.organisation_id == PLATFORM,
            Account.kind == kind,
            Account.subject == subject,
            Transfer.kind.in_((TransferKind.SINGLE, TransferKind.POST)),
            Transfer.event_at < end,
        )
    )
    return int(session.scalar(query) or 0)
