"""Closes a Shanghai month for good: nothing new can be dated in it, corrections are dated later.

It leaves what a month's reports say to `hub.reports`.
"""

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from hub.errors import ConflictError
from hub.ledger.periods import month_bounds
from hub.ledger.tables import ClosedMonth


class MonthRunningError(ConflictError):
    """A month cannot be closed before it is over."""

    code = "month_running"


def close_month(session: Session, month: str, *, closed_by: str, now: datetime) -> ClosedMonth:
    """Close a month that is over; again returns the first closing.

    Raises:
        MonthRunningError: the month has not ended.
        InvalidValueError: the key is not of the form `2026-11`.
    """
    end = month_bounds(month)[1]
    if now < end:
        raise MonthRunningError(
            f"Month {month} runs until {end.isoformat()}; close it after that.",
            f"{month} 月份到 {end.isoformat()} 才结束，请届时再关账。",
        )
    if session.get_bind().dialect.name == "postgresql":
        # Every posting locks account rows before it looks for closed months: this waits for those under way.
        session.execute(text("LOCK TABLE ledger_accounts IN EXCLUSIVE MODE"))
    found = session.get(ClosedMonth, month)
    if found is None:
        found = ClosedMonth(month=month, closed_by=closed_by, closed_at=now)
        session.add(found)
        session.flush()
    return found


def list_closed(session: Session) -> list[ClosedMonth]:
    """Return the closed months, oldest first."""
    return list(session.scalars(select(ClosedMonth).order_by(ClosedMonth.month)))
