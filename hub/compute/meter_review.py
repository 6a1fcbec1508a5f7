"""An operator decides on quarantined reports: accepted, possibly for less, or rejected, with a reason.

It leaves taking reports to `metering`; what an accepted one changes on a bill is for orders.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.compute.meter_rules import MeterRefusedError, Reading, doubt_reading
from hub.compute.meter_spans import count_report, doubt_overlap, find_neighbours, record_meter
from hub.compute.tables import MeterRecord, MeterState, Rental
from hub.errors import ConflictError, NotFoundError, ReasonMissingError


class DoubtRemainsError(ConflictError):
    """A quarantined report breaks a rule that no officer may waive."""

    code = "meter_doubt"


def resolve_meter(
    session: Session,
    actor: Actor,
    record_id: str,
    *,
    accept: bool,
    reason: str,
    now: datetime,
    device_ms: int | None = None,
) -> MeterRecord:
    """Accept a quarantined report, possibly for less (`device_ms` cumulative), or reject it. Again changes nothing.

    Raises:
        ReasonMissingError: no reason. DoubtRemainsError: what would count passes the time that passed, runs
        backwards, or overlaps with another rental of the device. ConflictError: it was decided otherwise.
    """
    actor.require(Role.OPERATOR)
    if not reason.strip():
        raise ReasonMissingError(
            "Deciding on a report needs a reason; say what was found.", "处理计量须填写原因。", field="reason"
        )
    found = session.get(MeterRecord, record_id)
    if found is None:
        raise NotFoundError.of("meter record", record_id)
    rental = session.get_one(Rental, found.rental_id, with_for_update=True, populate_existing=True)
    record = session.get_one(MeterRecord, record_id, with_for_update=True, populate_existing=True)
    if record.state is not MeterState.QUARANTINED:
        return _check_same(record, accept)
    if accept:
        counted = record.device_ms if device_ms is None else device_ms
        _check_countable(session, rental, record, counted)
        count_report(session, rental, record, counted)
        record.state = MeterState.ACCEPTED
    else:
        record.state = MeterState.REJECTED
    record.resolved_by, record.resolved_at, record.resolution = actor.user_id, now, reason.strip()
    session.flush()
    record_meter(session, f"meter.{record.state}", record, actor_id=actor.user_id, now=now, reason=record.resolution)
    return record


def list_meters(
    session: Session,
    *,
    rental_id: str | None = None,
    provider_organisation_id: str | None = None,
    state: MeterState | None = None,
    after: str = "",
    limit: int = 200,
) -> list[MeterRecord]:
    """Return reports by id, oldest first, those after the id `after` (the caller authorises)."""
    query = select(MeterRecord).where(MeterRecord.id > after)
    if rental_id is not None:
        query = query.where(MeterRecord.rental_id == rental_id)
    if provider_organisation_id is not None:
        query = query.where(MeterRecord.provider_organisation_id == provider_organisation_id)
    if state is not None:
        query = query.where(MeterRecord.state == state)
    return list(session.scalars(query.order_by(MeterRecord.id).limit(limit)))


def _check_countable(session: Session, rental: Rental, record: MeterRecord, counted_ms: int) -> None:
    if type(counted_ms) is not int or not 0 <= counted_ms <= record.device_ms:
        raise MeterRefusedError(
            f"device_ms is {counted_ms}; a report of {record.device_ms} ms counts for 0 to that.",
            f"device_ms 为 {counted_ms}，该上报最多计 {record.device_ms} ms。",
            field="device_ms",
        )
    new = Reading(counted_ms, min(record.observed_at, record.received_at, rental.released_at or record.received_at))
    before, after = find_neighbours(session, rental, record.seq)
    doubt = doubt_reading(new, before=before, after=after, received_at=record.received_at)
    doubt = doubt or doubt_overlap(session, rental, record.device_id, new, before)
    if doubt is not None:
        raise DoubtRemainsError(
            f"This report cannot count for {counted_ms} ms: {doubt.en} Accept it for less, or reject it.",
            f"该上报不能计 {counted_ms} ms：{doubt.zh}。请减少后接受，或驳回。",
            rule=doubt.code,
        )


def _check_same(record: MeterRecord, accept: bool) -> MeterRecord:
    if record.resolved_by is None or (record.state is MeterState.ACCEPTED) != accept:
        raise ConflictError(
            f"Report '{record.id}' is {record.state}; only a quarantined one is decided on, once.",
            f"计量“{record.id}”状态为 {record.state}，只有隔离中的记录可以处理，且只处理一次。",
        )
    return record
