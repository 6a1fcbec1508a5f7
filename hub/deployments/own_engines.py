"""Versions that no shared engine can load: each is served by an engine of its own whose weights carry it.

It leaves the merge and the engine to `hub.deployments.merging`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.jobs.service import enqueue_job

MERGE_KIND = "version.merge"
DORA = "dora"
"""The kind of adapter, among a version's facts, that vLLM's slots do not take: its scales are of base and adapter."""
_MAX_FAILURES = 3


def needs_own_engine(version: ModelVersion) -> bool:
    """Return whether a version answers only with merged weights."""
    return bool(version.facts.get("variant") == DORA)


def enqueue_merge(session: Session, version: ModelVersion, *, now: datetime) -> None:
    """Let a worker merge an adapter into its base and want the engines that are asked for; again changes nothing."""
    enqueue_job(
        session,
        kind=MERGE_KIND,
        subject=version.id,
        organisation_id=version.organisation_id,
        now=now,
        max_failures=_MAX_FAILURES,
    )
