"""Takes providers' signed reports of device time, each once: believed, or quarantined with a reason.

It leaves the operator's decision on doubtful ones to `meter_review` and what time is worth to orders.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.compute.meter_rules import (
    Doubt,
    MeterRefusedError,
    Reading,
    Report,
    check_report,
    derive_meter_key,
    doubt_reading,
    doubt_signature,
    fingerprint_report,
)
from hub.compute.meter_spans import count_report, doubt_overlap, find_neighbours, is_counted, record_meter
from hub.compute.tables import HoldState, MeterRecord, MeterState, Provider, Rental, RentalPurpose
from hub.errors import ForbiddenError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id


def issue_meter_key(session: Session, actor: Actor, provider_id: str, *, secret: str, now: datetime) -> tuple[int, str]:
    """Give a provider its next meter key, shown this once; the one before no longer counts.

    Raises:
        ForbiddenError, NotFoundError: not this provider's person.
    """
    actor.require(Role.PROVIDER)
    provider = session.get(Provider, provider_id, with_for_update=True)
    if provider is None or provider.organisation_id != actor.organisation_id:
        raise NotFoundError.of("provider", provider_id)
    provider.meter_key_number += 1
    record_event(
        session,
        "meter_key.issued",
        provider.id,
        organisation_id=provider.organisation_id,
        actor_id=actor.user_id,
        now=now,
        number=provider.meter_key_number,
    )
    return provider.meter_key_number, derive_meter_key(secret, provider.id, provider.meter_key_number)


def report_meter(
    session: Session, actor: Actor, report: Report, *, secret: str, previous: str | None = None, now: datetime
) -> MeterRecord:
    """Keep a report of a customer's rental. The same report again returns the first and changes nothing.

    Keys made from the `previous` secret of the installation go on as long as it is given.

    Raises:
        MeterRefusedError: malformed figures. NotFoundError: not a rental of this provider.
    """
    check_report(report)
    rental = _lock_provided(session, actor, report.rental_id)
    found = session.scalar(
        select(MeterRecord).where(
            MeterRecord.rental_id == rental.id, MeterRecord.fingerprint == fingerprint_report(report)
        )
    )
    if found is not None:
        return found
    secrets = (secret,) if previous is None else (secret, previous)
    doubt = _doubt(session, rental, report, secrets=secrets, now=now)
    record = _build_record(rental, report, doubt, now=now)
    if doubt is None:
        count_report(session, rental, record, report.device_ms)
    session.add(record)
    session.flush()
    if doubt is not None:
        record_meter(session, "meter.quarantined", record, actor_id=actor.user_id, now=now, code=doubt.code)
    return record


def _lock_provided(session: Session, actor: Actor, rental_id: str) -> Rental:
    rental = session.get(Rental, rental_id, with_for_update=True, populate_existing=True)
    if rental is None or rental.provider_organisation_id != actor.organisation_id:
        raise NotFoundError.of("rental", rental_id)
    if actor.role is not Role.PROVIDER:
        raise ForbiddenError(
            f"Role '{actor.role}' does not meter; the provider's own account reports device time.",
            f"角色“{actor.role}”不能上报计量，请使用供应商账户。",
        )
    if rental.purpose is not RentalPurpose.CUSTOMER:
        raise MeterRefusedError(
            f"Rental '{rental.id}' is for {rental.purpose}; its trainer meters it.",
            f"租用“{rental.id}”用于 {rental.purpose}，由训练进程计量。",
            field="rental_id",
        )
    return rental


def _doubt(
    session: Session, rental: Rental, report: Report, *, secrets: tuple[str, ...], now: datetime
) -> Doubt | None:
    doubt = doubt_signature(report, *_find_keys(session, rental, secrets))
    if doubt is None and rental.state is not HoldState.ACTIVE:
        doubt = Doubt("rental_over", "租用已结束", "The rental is over.")
    if doubt is not None:
        return doubt
    if is_counted(session, rental, report.seq):
        return Doubt(
            "conflicting_repeat",
            f"序号 {report.seq} 已上报过不同内容",
            f"Number {report.seq} came before with other content.",
        )
    new = Reading(report.device_ms, report.observed_at)
    before, after = find_neighbours(session, rental, report.seq)
    doubt = doubt_reading(new, before=before, after=after, received_at=now)
    return doubt or doubt_overlap(session, rental, report.device_id, new, before)


def _find_keys(session: Session, rental: Rental, secrets: tuple[str, ...]) -> list[str]:
    # Locked, so that two reports of one provider's devices cannot both pass the look for an overlap.
    query = select(Provider).where(Provider.organisation_id == rental.provider_organisation_id).with_for_update()
    provider = session.scalars(query).one()
    number = provider.meter_key_number
    return [derive_meter_key(secret, provider.id, number) for secret in secrets] if number else []


def _build_record(rental: Rental, report: Report, doubt: Doubt | None, *, now: datetime) -> MeterRecord:
    return MeterRecord(
        id=new_id("mtr"),
        organisation_id=rental.organisation_id,
        provider_organisation_id=rental.provider_organisation_id,
        rental_id=rental.id,
        seq=report.seq,
        device_id=report.device_id,
        device_ms=report.device_ms,
        counted_ms=None,
        busy_from_at=report.observed_at,
        observed_at=report.observed_at,
        received_at=now,
        signature=report.signature,
        fingerprint=fingerprint_report(report),
        state=MeterState.QUARANTINED if doubt else MeterState.ACCEPTED,
        code=doubt.code if doubt else None,
        reason_zh=doubt.zh if doubt else None,
        reason_en=doubt.en if doubt else None,
    )
