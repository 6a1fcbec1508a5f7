"""Counts how calls of watched versions end, as their records arrive. It leaves judging the counts to who watches."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from hub.database import find_connection
from hub.metering.tables import WatchedOutcome
from serving.contract import EndReason, UsageRecord

FAILURES = frozenset({EndReason.UPSTREAM_DIED, EndReason.UPSTREAM_REFUSED, EndReason.TIMEOUT})
"""Ends that are the serving side's fault."""


def watch_versions(session: Session, version_ids: Sequence[str], now: datetime) -> None:
    """Count calls of these versions from 0 from now on."""
    end_watch(session, version_ids)
    session.add_all(WatchedOutcome(version_id=key, calls=0, failures=0, since_at=now) for key in version_ids)
    session.flush()


def end_watch(session: Session, version_ids: Sequence[str]) -> None:
    """Stop counting. Idempotent."""
    session.execute(delete(WatchedOutcome).where(WatchedOutcome.version_id.in_(version_ids)))


def read_outcomes(session: Session, version_id: str) -> tuple[int, int]:
    """Return calls and failures of a watched version; zeros for another."""
    row = session.get(WatchedOutcome, version_id)
    return (0, 0) if row is None else (row.calls, row.failures)


def count_outcomes(session: Session, records: Sequence[UsageRecord]) -> None:
    """Add these new records to the counts of the versions that are watched; a look at a table of few rows else."""
    connection = find_connection(session)
    watched = {row[0] for row in connection.execute(select(WatchedOutcome.version_id))}
    for version_id in sorted(watched & {record.version_id for record in records}):
        ends = [record.end_reason for record in records if record.version_id == version_id]
        connection.execute(
            update(WatchedOutcome)
            .where(WatchedOutcome.version_id == version_id)
            .values(
                calls=WatchedOutcome.calls + len(ends),
                failures=WatchedOutcome.failures + sum(end in FAILURES for end in ends),
            )
        )
