"""Closes months: a firm's statement is stored once its money has come to rest, and is served from there for good.

It leaves topping vouchers up to `hub.orders`, whose later top-ups stand in the open month, naming the closed one.
"""

from datetime import datetime, timedelta

from sqlalchemy import exists, select, union
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError
from hub.events.service import SYSTEM, record_event
from hub.ledger.periods import month_bounds, month_key
from hub.orders.tables import BillLine, Charge
from hub.orders.usage_tables import TrancheState, UsageTranche
from hub.reports.service import build_statement
from hub.reports.stored import digest, present_statement
from hub.reports.tables import ClosedStatement

GRACE = timedelta(days=1)
"""How long after its end a month stays open for slices that come back late and for top-ups (our default)."""
MAX_CLOSED = 20


class PeriodOpenError(ConflictError):
    """The month cannot be closed yet."""

    code = "period_open"


def close_statements(session: Session, now: datetime, *, limit: int = MAX_CLOSED) -> int:
    """Close the months of firms whose money has come to rest, at most `limit`; return how many. Idempotent."""
    used = union(
        select(Charge.organisation_id, Charge.month).where(Charge.month < month_key(now)),
        select(BillLine.organisation_id, BillLine.month).where(BillLine.month < month_key(now)),
    ).subquery()
    query = (
        select(used.c.organisation_id, used.c.month)
        .where(
            ~exists().where(
                ClosedStatement.organisation_id == used.c.organisation_id, ClosedStatement.month == used.c.month
            ),
            ~exists().where(
                UsageTranche.organisation_id == used.c.organisation_id,
                UsageTranche.month == used.c.month,
                UsageTranche.state == TrancheState.OPEN,
            ),
        )
        .order_by(used.c.month, used.c.organisation_id)
    )
    due = [(owner, month) for owner, month in session.execute(query) if _is_over(month, now)][:limit]
    for owner, month in due:
        _store(session, owner, month, closed_by=SYSTEM, now=now)
    return len(due)


def close_statement(
    session: Session, actor: Actor, organisation_id: str, month: str, *, now: datetime
) -> ClosedStatement:
    """Close a firm's month by hand (operator). Again returns what is stored.

    Raises:
        PeriodOpenError: the month is not over for a day yet, or money of it is still held.
    """
    actor.require(Role.OPERATOR)
    found = session.get(ClosedStatement, (organisation_id, month))
    if found is not None:
        return found
    if not _is_over(month, now):
        at = (month_bounds(month)[1] + GRACE).isoformat()
        raise PeriodOpenError(
            f"Month {month} can be closed from {at} on.", f"账期 {month} 自 {at} 起方可关闭。", field="month"
        )
    held = session.scalar(
        select(UsageTranche.id)
        .where(
            UsageTranche.organisation_id == organisation_id,
            UsageTranche.month == month,
            UsageTranche.state == TrancheState.OPEN,
        )
        .limit(1)
    )
    if held is not None:
        raise PeriodOpenError(
            f"Usage tranche '{held}' of {month} is still open; close its allowances first.",
            f"{month} 的用量批次“{held}”仍未了结，请先关闭其额度。",
            field="month",
        )
    return _store(session, organisation_id, month, closed_by=actor.user_id, now=now)


def _is_over(month: str, now: datetime) -> bool:
    return month_bounds(month)[1] + GRACE <= now


def _store(session: Session, organisation_id: str, month: str, *, closed_by: str, now: datetime) -> ClosedStatement:
    body = present_statement(build_statement(session, organisation_id, month))
    row = ClosedStatement(
        organisation_id=organisation_id,
        month=month,
        body=body,
        sha256=digest(body),
        closed_by=closed_by,
        closed_at=now,
    )
    session.add(row)
    session.flush()
    record_event(
        session,
        "statement.closed",
        f"{organisation_id}:{month}",
        organisation_id=organisation_id,
        actor_id=closed_by,
        now=now,
        month=month,
        sha256=row.sha256,
        list_fen=body["list_fen"],
        voucher_fen=body["voucher_fen"],
        self_paid_fen=body["self_paid_fen"],
    )
    return row
