"""Which states allow a step, and the event that each step on a version leaves. It leaves the steps to their files."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.tables import ModelVersion, VersionState
from hub.errors import ConflictError
from hub.events.service import record_event


def require_state(version: ModelVersion, allowed: Sequence[VersionState], step: str) -> None:
    """Pass if the version is in one of the states; `step` reads "it can be <step> when". Raises: ConflictError."""
    if version.state not in allowed:
        needed = ", ".join(allowed)
        raise ConflictError(
            f"Version {version.id} is '{version.state}'; it can be {step} when {needed}.",
            f"版本 {version.id} 状态为“{version.state}”，此操作需要 {needed}。",
            state=str(version.state),
        )


def record_step(
    session: Session, topic: str, version: ModelVersion, actor: Actor, now: datetime, **payload: object
) -> None:
    """Write the event of one step on a version in the caller's transaction."""
    record_event(
        session,
        topic,
        version.id,
        organisation_id=version.organisation_id,
        actor_id=actor.user_id,
        now=now,
        **payload,
    )
