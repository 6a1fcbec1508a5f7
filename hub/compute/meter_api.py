"""HTTP of device time: a provider's key, its signed reports, and the raw records for who may see them.

It leaves deciding on quarantined reports to `hub.orders`, because an accepted one may correct a bill.
"""

from datetime import datetime

from flask_openapi3.blueprint import APIBlueprint
from pydantic import AwareDatetime, Field

from hub.actor import READERS, Role
from hub.compute.answers import MeterKeyView, Meters, MeterView
from hub.compute.meter_review import list_meters
from hub.compute.meter_rules import Report
from hub.compute.metering import issue_meter_key, report_meter
from hub.compute.service import may_read_rental
from hub.compute.tables import MeterRecord, MeterState, Rental
from hub.errors import NotFoundError
from hub.secrets import PREVIOUS_PEPPER
from hub.web import Body, Query, context, current_actor

DERIVED_FROM = "pepper"
"""The installation's secret that providers' keys are derived from."""


class ProviderPath(Query):
    """One provider."""

    provider_id: str


class RentalPath(Query):
    """One rental."""

    rental_id: str


class MeterQuery(Query):
    """A page of reports, oldest first: those after the id `after`, in one state where given."""

    state: MeterState | None = None
    after: str = ""
    limit: int = Field(200, ge=1, le=1000)


class ReportBody(Body):
    """Cumulative device milliseconds of a rental; `seq` grows by the provider's count, `signature` is hex HMAC-SHA256.

    Signed is the canonical JSON (sorted keys, no spaces) of device_id, device_ms, observed_at (whole µs since 1970),
    rental_id and seq.
    """

    seq: int
    device_id: str
    device_ms: int
    observed_at: AwareDatetime = Field(strict=False)
    signature: str = ""


def register_meters(blueprint: APIBlueprint) -> None:
    """Add the endpoints of device time to the room's blueprint."""
    blueprint.post("/providers/<provider_id>/meter-key")(post_meter_key)
    blueprint.post("/rentals/<rental_id>/meters")(post_report)
    blueprint.get("/rentals/<rental_id>/meters")(get_rental_meters)
    blueprint.get("/meters")(get_meters)


def present_meter(record: MeterRecord) -> MeterView:
    """Return a report as JSON values, as it came and as it was judged."""
    return {
        "id": record.id,
        "rental_id": record.rental_id,
        "seq": record.seq,
        "device_id": record.device_id,
        "device_ms": record.device_ms,
        "counted_ms": record.counted_ms,
        "observed_at": record.observed_at.isoformat(),
        "received_at": record.received_at.isoformat(),
        "signature": record.signature,
        "state": record.state,
        "rule": record.code,
        "reason": {"zh": record.reason_zh or "", "en": record.reason_en or ""} if record.code else None,
        "resolved_by": record.resolved_by,
        "resolved_at": _iso(record.resolved_at),
        "resolution": record.resolution,
    }


def post_meter_key(path: ProviderPath) -> tuple[MeterKeyView, int]:
    """Give the provider its next meter key, shown this once (provider)."""
    actor, secret = current_actor(), context().secrets[DERIVED_FROM]
    with context().sessions.write() as session:
        number, key = issue_meter_key(session, actor, path.provider_id, secret=secret, now=context().clock())
        return {"provider_id": path.provider_id, "number": number, "key": key}, 201


def post_report(path: RentalPath, body: ReportBody) -> tuple[MeterView, int]:
    """Take a report of device time (provider): accepted, or quarantined with the rule that doubts it."""
    actor, secrets = current_actor(), context().secrets
    report = Report(path.rental_id, **body.model_dump())
    with context().sessions.write() as session:
        record = report_meter(
            session,
            actor,
            report,
            secret=secrets[DERIVED_FROM],
            previous=secrets.values.get(PREVIOUS_PEPPER),
            now=context().clock(),
        )
        return present_meter(record), 201 if record.state is MeterState.ACCEPTED else 202


def get_rental_meters(path: RentalPath, query: MeterQuery) -> Meters:
    """Return the raw reports of a rental: for the firm that pays, the provider, operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        rental = session.get(Rental, path.rental_id)
        if rental is None or not may_read_rental(actor, rental):
            raise NotFoundError.of("rental", path.rental_id)
        found = list_meters(session, rental_id=rental.id, state=query.state, after=query.after, limit=query.limit)
        return _page(found, query.limit)


def get_meters(query: MeterQuery) -> Meters:
    """Return reports: the provider's own, all for operator and auditor."""
    actor = current_actor()
    actor.require(Role.PROVIDER, *READERS)
    owner = actor.organisation_id if actor.role is Role.PROVIDER else None
    with context().sessions.read() as session:
        found = list_meters(
            session, provider_organisation_id=owner, state=query.state, after=query.after, limit=query.limit
        )
        return _page(found, query.limit)


def _page(found: list[MeterRecord], limit: int) -> Meters:
    following = found[-1].id if len(found) == limit else None
    return {"items": [present_meter(record) for record in found], "next_after": following}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
