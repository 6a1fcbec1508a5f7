"""Vouchers that paid a closed month's calls later: lines of the month in which they paid, naming the closed one.

It leaves paying them to `hub.orders.month_close`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.ledger.tables import Transfer
from hub.orders.tables import BillLine
from hub.reports.tables import ClosedStatement

TOP_UP = "voucher_topped_up"


def list_late_top_ups(
    session: Session, organisation_id: str, start: datetime, end: datetime
) -> list[tuple[Transfer, BillLine]]:
    """Return the top-ups within [start, end) of bill lines whose month was closed before."""
    query = (
        select(Transfer, BillLine)
        .join(BillLine, BillLine.id == Transfer.business_id)
        .join(
            ClosedStatement,
            (ClosedStatement.organisation_id == BillLine.organisation_id) & (ClosedStatement.month == BillLine.month),
        )
        .where(
            Transfer.code == TOP_UP,
            BillLine.organisation_id == organisation_id,
            Transfer.recorded_at >= start,
            Transfer.recorded_at < end,
            Transfer.recorded_at >= ClosedStatement.closed_at,
        )
        .order_by(Transfer.seq)
    )
    return [(transfer, line) for transfer, line in session.execute(query)]


def find_late_top_up(session: Session, transfer_id: str) -> tuple[Transfer, BillLine] | None:
    """Return a top-up with its bill line, None for a transfer that is none."""
    query = (
        select(Transfer, BillLine)
        .join(BillLine, BillLine.id == Transfer.business_id)
        .where(Transfer.id == transfer_id, Transfer.code == TOP_UP)
    )
    found = session.execute(query).one_or_none()
    return None if found is None else (found[0], found[1])
