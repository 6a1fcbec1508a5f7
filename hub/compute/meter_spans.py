"""Counters between their neighbours and devices in time: what a report stands between, and whom it would overlap.

It leaves the rules to `meter_rules` and storing reports to `metering`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute.meter_rules import Doubt, Reading
from hub.compute.tables import MeterRecord, MeterState, Rental
from hub.events.service import record_event

MILLISECOND = timedelta(milliseconds=1)


def find_neighbours(session: Session, rental: Rental, seq: int) -> tuple[Reading, Reading | None]:
    """Return the counted readings before and after a sequence number; before the first is zero at the start."""
    counted = select(MeterRecord).where(MeterRecord.rental_id == rental.id, MeterRecord.state == MeterState.ACCEPTED)
    lower = session.scalar(counted.where(MeterRecord.seq < seq).order_by(MeterRecord.seq.desc()).limit(1))
    higher = session.scalar(counted.where(MeterRecord.seq > seq).order_by(MeterRecord.seq).limit(1))
    before = _read(lower) if lower else Reading(0, rental.allocated_at)
    return before, _read(higher) if higher else None


def is_counted(session: Session, rental: Rental, seq: int) -> bool:
    """Say whether a report of that number counts already."""
    query = select(MeterRecord.id).where(
        MeterRecord.rental_id == rental.id, MeterRecord.state == MeterState.ACCEPTED, MeterRecord.seq == seq
    )
    return session.scalar(query) is not None


def doubt_overlap(session: Session, rental: Rental, device_id: str, new: Reading, before: Reading) -> Doubt | None:
    """Return a doubt where the device was counted for another rental in the time that a report adds."""
    if new.device_ms <= before.device_ms:
        return None
    busy_from = new.observed_at - (new.device_ms - before.device_ms) * MILLISECOND
    other = session.scalar(
        select(MeterRecord)
        .where(
            MeterRecord.provider_organisation_id == rental.provider_organisation_id,
            MeterRecord.device_id == device_id,
            MeterRecord.rental_id != rental.id,
            MeterRecord.state == MeterState.ACCEPTED,
            MeterRecord.busy_from_at < new.observed_at,
            MeterRecord.observed_at > busy_from,
            MeterRecord.busy_from_at < MeterRecord.observed_at,
        )
        .limit(1)
    )
    if other is None:
        return None
    return Doubt(
        "device_overlap",
        f"设备 {device_id} 同一时间已计入租用 {other.rental_id}",
        f"Device {device_id} was metered for rental {other.rental_id} in the same time.",
    )


def count_report(session: Session, rental: Rental, record: MeterRecord, counted_ms: int) -> None:
    """Let a report count: its span is taken, and the rental's counter moves on where it is the newest."""
    before, _ = find_neighbours(session, rental, record.seq)
    record.counted_ms = counted_ms
    record.busy_from_at = record.observed_at - (counted_ms - before.device_ms) * MILLISECOND
    if record.seq > rental.meter_seq:
        rental.meter_seq, rental.device_ms = record.seq, counted_ms


def record_meter(
    session: Session, topic: str, record: MeterRecord, *, actor_id: str, now: datetime, **payload: object
) -> None:
    """Write the event of a report."""
    record_event(
        session,
        topic,
        record.id,
        organisation_id=record.organisation_id,
        actor_id=actor_id,
        now=now,
        rental_id=record.rental_id,
        seq=record.seq,
        device_ms=record.device_ms,
        counted_ms=record.counted_ms,
        **payload,
    )


def _read(record: MeterRecord) -> Reading:
    return Reading(record.counted_ms or 0, min(record.observed_at, record.received_at))
