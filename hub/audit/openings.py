"""Bill lines of hosted calls as they stood when a period began, so that a bill can be computed from there on.

It leaves computing to `verifier`.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from hub.audit.annexes import BILL_LINE_FIELDS
from hub.audit.content import plain
from hub.events.tables import Event
from hub.orders.tables import BillVersion, CallCorrection, Charge, ChargePart, Fault
from hub.orders.usage_tables import BillLine, RatedUsage, UsageTranche

TOPPED_UP = "bill_line.topped_up"


def list_openings(session: Session, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
    """Yield every bill line made before `end` with what was exact, posted, subsidised and given out before `start`."""
    exact = _sum_exact(session, start)
    charged = _sum_charges(session, start)
    parts = _sum_parts(session, start)
    topped_up = _sum_top_ups(session, start)
    for line in session.scalars(select(BillLine).where(BillLine.created_at < end).order_by(BillLine.id)):
        posted, subsidised = charged.get(line.id, (0, 0))
        yield plain(line, BILL_LINE_FIELDS) | {
            "exact_ufen": exact.get(line.id, 0),
            "posted_fen": posted,
            "subsidised_fen": subsidised + topped_up.get(line.id, 0),
            "parts": sorted(parts.get(line.id, [])),
        }


def _sum_exact(session: Session, start: datetime) -> dict[str, int]:
    query = (
        select(RatedUsage.bill_line_id, func.sum(RatedUsage.cost_ufen))
        .join(UsageTranche, UsageTranche.id == RatedUsage.tranche_id)
        .where(UsageTranche.resolved_at < start)
        .group_by(RatedUsage.bill_line_id)
    )
    found: dict[str, int] = defaultdict(int)
    found.update({line: int(total) for line, total in session.execute(query)})
    corrected = (
        select(CallCorrection.bill_line_id, func.sum(CallCorrection.cost_ufen - CallCorrection.was_ufen))
        .where(CallCorrection.corrected_at < start)
        .group_by(CallCorrection.bill_line_id)
    )
    for line, total in session.execute(corrected):
        found[line] += int(total)
    return found


def _sum_charges(session: Session, start: datetime) -> dict[str, tuple[int, int]]:
    query = (
        select(Charge.bill_line_id, func.sum(Charge.fee_fen), func.sum(Charge.voucher_fen))
        .where(Charge.bill_line_id.is_not(None), Charge.charged_at < start)
        .group_by(Charge.bill_line_id)
    )
    return {line: (int(fee), int(voucher)) for line, fee, voucher in session.execute(query) if line is not None}


def _sum_parts(session: Session, start: datetime) -> dict[str, list[list[Any]]]:
    query = (
        select(Charge.bill_line_id, ChargePart.party, ChargePart.organisation_id, func.sum(ChargePart.amount_fen))
        .join(Charge, Charge.id == ChargePart.charge_id)
        .where(Charge.bill_line_id.is_not(None), Charge.charged_at < start)
        # What the platform bore is no share of the line: its receivers kept what they had.
        .where(
            Charge.group_id.not_in(select(BillVersion.group_id).where(BillVersion.fault == Fault.PLATFORM, _posted()))
        )
        .group_by(Charge.bill_line_id, ChargePart.party, ChargePart.organisation_id)
    )
    found: dict[str, list[list[Any]]] = defaultdict(list)
    for line, party, organisation_id, amount in session.execute(query):
        found[str(line)].append([party, organisation_id, int(amount)])
    return found


def _posted() -> ColumnElement[bool]:
    return BillVersion.group_id.is_not(None)


def _sum_top_ups(session: Session, start: datetime) -> dict[str, int]:
    query = select(Event).where(Event.topic == TOPPED_UP, Event.occurred_at < start)
    found: dict[str, int] = defaultdict(int)
    for event in session.scalars(query):
        found[event.subject] += event.payload["paid_fen"]
    return found
