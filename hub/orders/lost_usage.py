"""Bills what engines did on the allowance of a lost gateway and nobody reported, from the engines' witness.

It leaves taking the witness to `hub.metering` and prices to `rating`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.metering.bulk import Row, list_values, store_usage
from hub.metering.reconciling import list_unbilled
from hub.metering.tables import EngineWitness, Usage
from hub.orders.usage_tables import Allowance
from hub.organisations.tables import ApiKey
from serving import contract

WITNESS = "engine-witness"
"""Stands as the gateway of records that no gateway sent."""


def bill_witnessed(session: Session, allowance: Allowance, now: datetime) -> int:
    """Store a usage record for each call that only the engines know; returns how many. Idempotent."""
    unbilled = list_unbilled(session, [allowance.id])
    said = _list_said(session, unbilled)
    rows = [_build_row(session, allowance, row, goes_on=_goes_on(row, said), now=now) for row in unbilled]
    return store_usage(session, rows)


def _list_said(session: Session, unbilled: Sequence[EngineWitness]) -> set[tuple[str, int]]:
    """Return the attempts of these calls that had said something, by records and by rows."""
    wanted = {row.request_id for row in unbilled}
    said: set[tuple[str, int]] = set()
    for table in (EngineWitness, Usage):
        query = select(table.request_id, table.attempt).where(table.request_id.in_(wanted), table.completion_tokens > 0)
        said |= {(row[0], row[1]) for row in session.execute(query)}
    return said


def _goes_on(row: EngineWitness, said: set[tuple[str, int]]) -> bool:
    """Whether an attempt goes on where an earlier one was lost: its prompt was billed then."""
    return any((row.request_id, attempt) in said for attempt in range(1, row.attempt))


def _build_row(session: Session, allowance: Allowance, row: EngineWitness, *, goes_on: bool, now: datetime) -> Row:
    version = session.get(ModelVersion, row.version_id)
    key = session.get(ApiKey, row.key_id)
    record = contract.UsageRecord(
        request_id=row.request_id,
        attempt=row.attempt,
        allowance_id=allowance.id,
        organisation_id=allowance.organisation_id,
        key_id=row.key_id or "",
        cost_centre=key.cost_centre if key else None,
        version_id=row.version_id or "",
        digest=version.artifact_digest if version else "",
        price_version_id=allowance.price_version_id,
        replica_id=row.replica_id,
        replica_epoch=row.replica_epoch,
        prompt_tokens=0 if goes_on else row.told_prompt_tokens,
        cached_tokens=0 if goes_on else row.told_cached_tokens,
        completion_tokens=row.completion_tokens,
        started_at=to_us(row.received_at),
        ended_at=to_us(row.received_at),
        end_reason=contract.EndReason.GATEWAY_LOST,
        status=contract.UsageStatus.PARTIAL,
        disputed=False,
    )
    return list_values(record, gateway_id=WITNESS, gateway_epoch=0, seq=row.seq, now_us=to_us(now))
