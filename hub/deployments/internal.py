"""Internal routes below /internal/v1 for the pool controller and the gateways (CONTRACTS.md).

It leaves allowances, usage and witnesses to the rooms of money; each caller proves its role by bearer token.
"""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint

from hub.deployments import snapshot as snapshots
from hub.deployments.desired import build_desired, read_generation
from hub.deployments.pool import apply_observed, lead
from hub.deployments.waiting import wait_for
from hub.web import Query, context, read_message, require_internal
from serving import contract

SNAPSHOT_AGE_S = 5.0
"""Even without any event the snapshot is built anew this often: a filing's end and a key's expiry make no event."""


class PollQuery(Query):
    """What the caller has, and how long it waits for more."""

    after: int = -1
    wait_s: float = 0.0


def add_internal_routes(blueprint: APIBlueprint) -> None:
    """Put the internal routes on the room's blueprint."""
    blueprint.post("/internal/v1/pool/lead", doc_ui=False)(post_lead)
    blueprint.get("/internal/v1/pool/desired", doc_ui=False)(get_desired)
    blueprint.put("/internal/v1/pool/observed", doc_ui=False)(put_observed)
    blueprint.get("/internal/v1/snapshot", doc_ui=False)(get_snapshot)


def post_lead() -> Response:
    """Lead -> LeadGrant; 409 while another controller leads."""
    require_internal("pool")
    message = read_message(contract.Lead)
    with context().sessions.write() as session:
        return _answer(lead(session, message.controller_id, now=context().clock()))


def get_desired(query: PollQuery) -> Response:
    """Desired as soon as its generation is above `after`; 204 when the wait is over."""
    require_internal("pool")

    def look() -> contract.Desired | None:
        with context().sessions.read() as session:
            return build_desired(session) if read_generation(session) > query.after else None

    return _answer(wait_for(look, query.wait_s, news=context().sessions.news))


def put_observed() -> Response:
    """Observed -> LeadGrant; 409 for a wrong epoch."""
    require_internal("pool")
    message = read_message(contract.Observed)
    with context().sessions.write() as session:
        return _answer(apply_observed(session, message, now=context().clock()))


def get_snapshot(query: PollQuery) -> Response:
    """Snapshot as soon as its version is above `after`; 204 when the wait is over."""
    require_internal("gateway")

    def look() -> contract.Snapshot | None:
        refresh_snapshot()
        with context().sessions.read() as session:
            kept = snapshots.read_snapshot(session)
        return kept if kept is not None and kept.version > query.after else None

    return _answer(wait_for(look, query.wait_s, news=context().sessions.news))


def refresh_snapshot() -> None:
    """Build the snapshot anew if something happened since it was kept."""
    now = context().clock()
    with context().sessions.read() as session:
        if not snapshots.is_stale(session, now=now, max_age_s=SNAPSHOT_AGE_S):
            return
        event_seq = snapshots.read_event_seq(session)
        built = snapshots.build_snapshot(session, now)
    with context().sessions.write() as session:
        snapshots.keep_snapshot(session, built, event_seq=event_seq, now=now)


def _answer(message: object | None) -> Response:
    if message is None:
        return Response(status=204)
    return Response(contract.dumps(message), content_type="application/json")
