"""Corrections of hosted calls on statements: lines of their own in the month in which they were posted.

It leaves the calls' own lines to `lines`, which show what was billed before any correction.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.orders.tables import Charge


@dataclass(frozen=True)
class Corrected:
    """What all corrections changed on a bill line so far, in fen."""

    fee_fen: int
    voucher_fen: int


def list_correcting_charges(session: Session, organisation_id: str, month: str) -> list[Charge]:
    """Return the corrections of hosted calls that were posted in a month, in order."""
    query = select(Charge).where(
        Charge.organisation_id == organisation_id,
        Charge.month == month,
        Charge.bill_line_id.is_not(None),
        Charge.version > 1,
    )
    return list(session.scalars(query.order_by(Charge.charged_at, Charge.id)))


def sum_corrected(session: Session, bill_line_id: str) -> Corrected:
    """Return what all corrections changed on a bill line; its own line leaves that out."""
    query = select(func.coalesce(func.sum(Charge.fee_fen), 0), func.coalesce(func.sum(Charge.voucher_fen), 0))
    fee, voucher = session.execute(query.where(Charge.bill_line_id == bill_line_id, Charge.version > 1)).one()
    return Corrected(int(fee), int(voucher))
