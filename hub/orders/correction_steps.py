"""The steps that every correction takes: checks, the second person above the limit, the record of it.

It leaves what changes to `corrections` (orders) and `call_corrections` (hosted calls).
"""

from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import ConflictError, ReasonMissingError
from hub.events.service import record_event
from hub.ledger.periods import month_bounds, month_key
from hub.ledger.rules import PeriodClosedError
from hub.orders.tables import BillVersion, BillVersionState
from hub.organisations.service import require_second_person

APPROVAL_LIMIT_FEN = 100_000
"""A correction of at most 1,000 yuan is posted by one person; above it a second one approves (our default)."""
ANNEX_VERSION = 2
"""What the audit trail keeps of a posted correction: `elapsed_fen` too since 2; older links stay as they were."""


def check_reason(reason: str) -> None:
    """Pass a reason that says something. Raises: ReasonMissingError."""
    if not reason.strip():
        raise ReasonMissingError(
            "A correction needs a reason; say what was wrong, as the firm will read it.",
            "更正须填写原因，企业会看到该说明。",
            field="reason",
        )


def check_month(month: str | None, now: datetime) -> None:
    """Pass the open month or none. Raises: PeriodClosedError."""
    if month is not None and month != month_key(now):
        month_bounds(month)
        raise PeriodClosedError(
            f"Month {month} is closed and never changes; differences are posted in {month_key(now)}.",
            f"账期 {month} 已关闭，不再变更；差额记入 {month_key(now)}。",
            field="month",
        )


def check_none_waits(session: Session, version: BillVersion) -> None:
    """Pass a bill without a waiting correction. Raises: ConflictError."""
    query = select(BillVersion.id).where(same_bill(version), BillVersion.state == BillVersionState.PROPOSED)
    waiting = session.scalar(query)
    if waiting is not None:
        raise ConflictError(
            f"Correction '{waiting}' of this bill waits for approval; decide on it first.",
            f"该账单的更正“{waiting}”待批准，请先处理。",
        )


def same_bill(version: BillVersion) -> ColumnElement[bool]:
    """Return what selects the versions of the same order or bill line."""
    if version.order_id is not None:
        return BillVersion.order_id == version.order_id
    return BillVersion.bill_line_id == version.bill_line_id


def note_sums(version: BillVersion, *, voucher_fen: int, cash_fen: int, elapsed_fen: int = 0) -> None:
    """Write the differences onto the version; `elapsed_fen` is what is paid for time and stands on no bill."""
    version.voucher_fen, version.cash_fen = voucher_fen, cash_fen
    version.fee_fen = voucher_fen + cash_fen
    version.elapsed_fen = elapsed_fen


def needs_second_person(session: Session, version: BillVersion) -> bool:
    """Say whether a correction, with what single persons posted of the same bill before, is above what one may post."""
    alone = select(BillVersion).where(
        same_bill(version), BillVersion.state == BillVersionState.POSTED, BillVersion.decided_by.is_(None)
    )
    return _size_fen(version) + sum(map(_size_fen, session.scalars(alone))) > APPROVAL_LIMIT_FEN


def _size_fen(version: BillVersion) -> int:
    """Return what a version moves: on the bill, and for time that stands on no bill, each by its size."""
    return max(abs(version.fee_fen), abs(version.voucher_fen), abs(version.cash_fen)) + abs(version.elapsed_fen)


def next_number(session: Session, version: BillVersion) -> int:
    """Return the number that the next posted version of the bill takes."""
    return (session.scalar(select(func.max(BillVersion.number)).where(same_bill(version))) or 1) + 1


def check_same(version: BillVersion, approve: bool) -> BillVersion:
    """Return a version that was decided the same way before. Raises: ConflictError."""
    if (version.state is BillVersionState.POSTED) != approve:
        raise ConflictError(
            f"Correction '{version.id}' was {version.state} before; it is decided once.",
            f"更正“{version.id}”已处理（{version.state}），只能处理一次。",
        )
    return version


def check_decision(session: Session, version: BillVersion, actor: Actor, *, approve: bool, reason: str) -> None:
    """Pass another person than the author, who names a reason to refuse. Raises: FourEyesError, ReasonMissingError."""
    require_second_person(
        session,
        actor,
        [version.proposed_by],
        en="You proposed this correction; another operator decides on it.",
        zh="该更正由您提出，须由另一名运营人员审批。",
    )
    if not approve and not reason.strip():
        raise ReasonMissingError(
            "A refusal needs a reason; say what is wrong with the correction.", "驳回须填写原因。", field="reason"
        )


def record_correction(session: Session, topic: str, version: BillVersion, *, actor_id: str, now: datetime) -> None:
    """Write the event of one step of a correction."""
    event = record_event(
        session,
        topic,
        version.order_id or version.bill_line_id or "",
        organisation_id=version.organisation_id,
        actor_id=actor_id,
        now=now,
        bill_version_id=version.id,
        number=version.number,
        fault=version.fault,
        reason=version.reason,
        fee_fen=version.fee_fen,
        voucher_fen=version.voucher_fen,
        cash_fen=version.cash_fen,
        advanced_fen=version.advanced_fen,
        elapsed_fen=version.elapsed_fen,
    )
    event.schema_version = ANNEX_VERSION


def list_corrections(
    session: Session,
    *,
    order_id: str | None = None,
    bill_line_id: str | None = None,
    state: BillVersionState | None = None,
) -> list[BillVersion]:
    """Return corrections, newest first (the caller authorises)."""
    query = select(BillVersion)
    if order_id is not None:
        query = query.where(BillVersion.order_id == order_id)
    if bill_line_id is not None:
        query = query.where(BillVersion.bill_line_id == bill_line_id)
    if state is not None:
        query = query.where(BillVersion.state == state)
    return list(session.scalars(query.order_by(BillVersion.id.desc()).limit(500)))
