"""What of a month's lines moved the firm's cash in another month: slices that came back late, and top-ups at the close.

It leaves the lines to `lines` and the accounts to `balances`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from hub.ledger.periods import month_bounds
from hub.ledger.tables import Transfer
from hub.orders.tables import BillLine, Charge
from hub.reports.top_ups import TOP_UP, list_late_top_ups


@dataclass(frozen=True)
class Carried:
    """Fen of the firm's own money: cash out in the month = self-paid of its lines - `later_fen` + `earlier_fen`.

    Negative where a voucher paid back. What a voucher paid on a closed month is a line of its own, so not in here.
    """

    later_fen: int
    earlier_fen: int


def sum_carried(session: Session, organisation_id: str, month: str) -> Carried:
    """Return what this month's lines moved after its end, and what earlier months' lines moved within it."""
    start, end = month_bounds(month)
    return Carried(
        later_fen=_charged(session, organisation_id, Charge.month == month, Charge.charged_at >= end)
        - _topped_up(session, organisation_id, BillLine.month == month, Transfer.recorded_at >= end),
        earlier_fen=_charged(session, organisation_id, Charge.month < month, *_within(Charge.charged_at, start, end))
        - _topped_up(session, organisation_id, BillLine.month < month, *_within(Transfer.recorded_at, start, end))
        + sum(transfer.amount_fen for transfer, _ in list_late_top_ups(session, organisation_id, start, end)),
    )


def _within(column: InstrumentedAttribute[datetime], start: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    return column >= start, column < end


def _charged(session: Session, organisation_id: str, *which: ColumnElement[bool]) -> int:
    query = select(func.coalesce(func.sum(Charge.cash_fen), 0))
    return int(session.scalar(query.where(Charge.organisation_id == organisation_id, *which)) or 0)


def _topped_up(session: Session, organisation_id: str, *which: ColumnElement[bool]) -> int:
    query = (
        select(func.coalesce(func.sum(Transfer.amount_fen), 0))
        .join(BillLine, BillLine.id == Transfer.business_id)
        .where(Transfer.code == TOP_UP, BillLine.organisation_id == organisation_id, *which)
    )
    return int(session.scalar(query) or 0)
