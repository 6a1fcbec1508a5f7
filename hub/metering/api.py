"""HTTP of metering: usage records, engines' counts beside what was billed, the pool controller's witness.

It leaves the gateway's usage endpoint to `hub.orders`, which knows allowances.
"""

from dataclasses import asdict
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from hub.actor import READERS
from hub.answers import Items
from hub.errors import NotFoundError
from hub.ledger.periods import month_bounds, month_key
from hub.metering import service
from hub.metering.reconciling import Reconciled, reconcile
from hub.metering.tables import Usage
from hub.metering.witness import take_witness
from hub.web import Query, context, current_actor, read_message, require_internal
from serving import contract

blueprint = APIBlueprint("metering", __name__)


class UsageQuery(Query):
    """One month of one organisation; the current month and the own organisation when left out."""

    month: str | None = None
    organisation_id: str | None = None
    limit: int = Field(200, ge=1, le=1000)


class UsageView(TypedDict):
    """Tokens of one call; `cached_tokens` are part of `prompt_tokens`."""

    request_id: str
    attempt: int
    key_id: str
    cost_centre: str | None
    version_id: str
    price_version_id: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    started_at: str
    ended_at: str
    end_reason: contract.EndReason
    status: contract.UsageStatus
    disputed: bool


class EngineMeter(TypedDict):
    """One start of an engine: completion tokens, `*_prompt` prompt tokens; `alarms` name what does not add up.

    `own`: warm-ups and probes. `awaited`: their calls' records have not come, `overdue` of them for ten minutes.
    `drift`: the engine's counters less its rows, null before the first reading.
    """

    replica_id: str
    replica_epoch: int
    rows: int
    witnessed_prompt: int
    witnessed: int
    own_prompt: int
    own: int
    billed_prompt: int
    billed: int
    undelivered: int
    awaited: int
    overdue: int
    overbilled: int
    drift_prompt: int | None
    drift: int | None
    read_at: str | None
    alarms: list[str]


def present_usage(row: Usage) -> UsageView:
    """Return a usage record as JSON values."""
    return {
        "request_id": row.request_id,
        "attempt": row.attempt,
        "key_id": row.key_id,
        "cost_centre": row.cost_centre,
        "version_id": row.version_id,
        "price_version_id": row.price_version_id,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "started_at": row.started_at.isoformat(),
        "ended_at": row.ended_at.isoformat(),
        "end_reason": row.end_reason,
        "status": row.status,
        "disputed": row.disputed,
    }


@blueprint.get("/api/v1/usage")
def list_usage(query: UsageQuery) -> Items[UsageView]:
    """Return usage records of a month, newest first."""
    actor = current_actor()
    owner = query.organisation_id or actor.organisation_id
    if not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    start, end = month_bounds(query.month or month_key(context().clock()))
    with context().sessions.read() as session:
        rows = service.list_usage(session, owner, start=start, end=end, limit=query.limit)
        return {"items": [present_usage(row) for row in rows]}


@blueprint.get("/api/v1/usage/engines")
def list_engines() -> Items[EngineMeter]:
    """Return engine starts of the last day, what they counted beside what was billed (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"items": [_present_engine(item) for item in reconcile(session, context().clock())]}


@blueprint.post("/internal/v1/witness", doc_ui=False)
def record_witness() -> dict[str, Any]:
    """Keep what engines counted themselves."""
    require_internal("pool")
    batch = read_message(contract.WitnessBatch)
    with context().sessions.write() as session:
        take_witness(session, batch, context().clock())
    return {"contract_version": contract.CONTRACT_VERSION}


def _present_engine(item: Reconciled) -> EngineMeter:
    read_at = item.read_at.isoformat() if item.read_at else None
    found: EngineMeter = {**asdict(item), "read_at": read_at, "alarms": list(item.alarms)}  # type: ignore[typeddict-item]  # asdict has no types
    return found
