"""The raw meter records behind one line of a statement, a page at a time.

It leaves the line's figures to `lines`; who may see them is decided here by whose line it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.compute.meter_review import list_meters
from hub.compute.tables import MeterRecord, Rental
from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.periods import month_key
from hub.metering.tables import Usage
from hub.orders.rental_quotes import RENTAL
from hub.orders.tables import BillLine, BillVersion, CallCorrection, Charge, Order, RatedUsage
from hub.reports.top_ups import find_late_top_up

MAX_RECORDS = 500


@dataclass(frozen=True)
class RawRecord:
    """One raw record: what was counted when, by whom, and how it was judged. `counted` is None where nothing is."""

    record_id: str
    at: datetime
    source: str
    figures: dict[str, int]
    cost_ufen: int | None
    state: str
    note_zh: str
    note_en: str


@dataclass(frozen=True)
class RecordPage:
    """Some records of a line; `next_after` opens the next page, None on the last one. `organisation_id` owns them.

    `month` is that of the statement on which the line stands.
    """

    line_id: str
    organisation_id: str
    month: str
    title_zh: str
    title_en: str
    items: list[RawRecord]
    next_after: str | None


def list_records(session: Session, actor: Actor, line_id: str, *, after: str = "", limit: int = 100) -> RecordPage:
    """Return the raw records behind a line (a charge or a bill line), oldest first.

    Raises:
        NotFoundError: no such line, or another organisation's. InvalidValueError: a cursor or size that is none.
    """
    if not 1 <= limit <= MAX_RECORDS:
        raise InvalidValueError(
            f"limit is {limit}; ask for 1 to {MAX_RECORDS} records.", f"limit 为 {limit}，应为 1 至 {MAX_RECORDS}。"
        )
    charge = session.get(Charge, line_id)
    if charge is not None and charge.order_id is not None:
        _check_owner(actor, charge.organisation_id, line_id)
        return _list_of_order(session, charge, charge.order_id, after=after, limit=limit)
    if charge is not None and charge.version > 1:
        _check_owner(actor, charge.organisation_id, line_id)
        return _list_of_correction(session, charge, after=after, limit=limit)
    bill_line = session.get(BillLine, line_id)
    if bill_line is not None:
        _check_owner(actor, bill_line.organisation_id, line_id)
        return _list_of_calls(session, bill_line, after=after, limit=limit)
    topped_up = find_late_top_up(session, line_id)
    if topped_up is None:
        raise NotFoundError.of("statement line", line_id)
    transfer, bill_line = topped_up
    _check_owner(actor, bill_line.organisation_id, line_id)
    page = _list_of_calls(session, bill_line, after=after, limit=limit)
    return replace(page, line_id=line_id, month=month_key(transfer.recorded_at))


def _check_owner(actor: Actor, organisation_id: str, line_id: str) -> None:
    if not actor.may_read(organisation_id):
        raise NotFoundError.of("statement line", line_id)


def _list_of_order(session: Session, charge: Charge, order_id: str, *, after: str, limit: int) -> RecordPage:
    order = session.get_one(Order, order_id)
    if order.subject_kind == RENTAL:
        found = list_meters(session, rental_id=order.subject, after=after, limit=limit + 1)
        items = [_show_meter(record) for record in found[:limit]]
    else:
        items = [] if after else _show_run(session, order)
        found = []
    return RecordPage(
        line_id=charge.id,
        organisation_id=charge.organisation_id,
        month=charge.month,
        title_zh=charge.title_zh,
        title_en=charge.title_en,
        items=items,
        next_after=items[-1].record_id if len(found) > limit else None,
    )


def _show_meter(record: MeterRecord) -> RawRecord:
    counted = {"counted_ms": record.counted_ms} if record.counted_ms is not None else {}
    return RawRecord(
        record_id=record.id,
        at=record.observed_at,
        source=record.device_id,
        figures={"seq": record.seq, "device_ms": record.device_ms, **counted},
        cost_ufen=None,
        state=str(record.state),
        note_zh=record.resolution or record.reason_zh or "",
        note_en=record.resolution or record.reason_en or "",
    )


def _show_run(session: Session, order: Order) -> list[RawRecord]:
    """Return the trainer's own cumulative counter on each rental of a run, and the figures that were settled."""
    rentals = session.scalars(select(Rental).where(Rental.run_id == order.subject).order_by(Rental.id))
    records = [
        RawRecord(
            record_id=rental.id,
            at=rental.released_at or rental.allocated_at,
            source=rental.offer_id,
            figures={"seq": rental.meter_seq, "device_ms": rental.device_ms},
            cost_ufen=None,
            state=str(rental.state),
            note_zh="训练进程累计设备时间",
            note_en="cumulative device time by the trainer",
        )
        for rental in rentals
    ]
    if order.closed_at is not None:
        records.append(
            RawRecord(
                record_id=order.id,
                at=order.closed_at,
                source=order.subject,
                figures=dict(order.metered or {}),
                cost_ufen=None,
                state=str(order.state),
                note_zh=order.reason_code or "结算所用计量",
                note_en=order.reason_code or "figures that were settled",
            )
        )
    return records


def _list_of_calls(session: Session, line: BillLine, *, after: str, limit: int) -> RecordPage:
    joined = (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt)
    query = select(Usage, RatedUsage.cost_ufen).join(RatedUsage, joined).where(RatedUsage.bill_line_id == line.id)
    if after:
        query = query.where(tuple_(Usage.request_id, Usage.attempt) > _read_cursor(after))
    rows: Sequence[tuple[Usage, int]] = [
        (usage, cost)
        for usage, cost in session.execute(query.order_by(Usage.request_id, Usage.attempt).limit(limit + 1))
    ]
    items = [_show_usage(usage, cost) for usage, cost in rows[:limit]]
    return RecordPage(
        line_id=line.id,
        organisation_id=line.organisation_id,
        month=line.month,
        title_zh=f"模型调用 {line.month}",
        title_en=f"Hosted calls of {line.month}",
        items=items,
        next_after=items[-1].record_id if len(rows) > limit else None,
    )


def _list_of_correction(session: Session, charge: Charge, *, after: str, limit: int) -> RecordPage:
    """Return the calls that a correction changed, as they should be; the cost is what each changed by."""
    query = (
        select(CallCorrection, BillVersion)
        .join(BillVersion, BillVersion.id == CallCorrection.bill_version_id)
        .where(BillVersion.bill_line_id == charge.bill_line_id, BillVersion.number == charge.version)
        .order_by(CallCorrection.request_id, CallCorrection.attempt)
    )
    if after:
        query = query.where(tuple_(CallCorrection.request_id, CallCorrection.attempt) > _read_cursor(after))
    rows = session.execute(query.limit(limit + 1)).all()
    items = [_show_corrected(call, version) for call, version in rows[:limit]]
    return RecordPage(
        line_id=charge.id,
        organisation_id=charge.organisation_id,
        month=charge.month,
        title_zh=f"{charge.title_zh} · 更正第 {charge.version} 版",
        title_en=f"{charge.title_en} · correction, version {charge.version}",
        items=items,
        next_after=items[-1].record_id if len(rows) > limit else None,
    )


def _show_corrected(call: CallCorrection, version: BillVersion) -> RawRecord:
    return RawRecord(
        record_id=f"{call.request_id}:{call.attempt}",
        at=call.ended_at,
        source=call.version_id,
        figures={
            "prompt": call.prompt_tokens - call.cached_tokens,
            "cached": call.cached_tokens,
            "completion": call.completion_tokens,
        },
        cost_ufen=call.cost_ufen - call.was_ufen,
        state="late" if call.late else "corrected",
        note_zh=version.reason,
        note_en=version.reason,
    )


def _show_usage(usage: Usage, cost_ufen: int) -> RawRecord:
    return RawRecord(
        record_id=f"{usage.request_id}:{usage.attempt}",
        at=usage.ended_at,
        source=usage.version_id,
        figures={
            "prompt": usage.prompt_tokens - usage.cached_tokens,
            "cached": usage.cached_tokens,
            "completion": usage.completion_tokens,
        },
        cost_ufen=cost_ufen,
        state=str(usage.status),
        note_zh=usage.cost_centre or "",
        note_en=usage.cost_centre or "",
    )


def _read_cursor(after: str) -> tuple[str, int]:
    request_id, _, attempt = after.rpartition(":")
    if not request_id or not attempt.isascii() or not attempt.isdecimal() or len(attempt) > 9:
        raise InvalidValueError(
            f"Cursor '{after[:80]}' is none; take next_after of the page before.",
            f"游标“{after[:80]}”有误，请使用上一页的 next_after。",
            field="after",
        )
    return request_id, int(attempt)
