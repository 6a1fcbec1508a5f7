"""The state of rollouts and its events: what is under way on a name, begin, end. Upward rooms and `rollouts` decide.

It leaves people's steps to `rollouts` and aliases to `aliases`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.deployments.tables import Deployment, Rollout, RolloutState
from hub.events.service import SYSTEM, record_event
from hub.metering.outcomes import end_watch, watch_versions

UNDER_WAY = (RolloutState.WAITING, RolloutState.RUNNING)


def find_open(session: Session, public_name: str) -> Rollout | None:
    """Return the rollout that is under way on a name."""
    query = select(Rollout).where(Rollout.public_name == public_name, Rollout.state.in_(UNDER_WAY))
    return session.scalar(query)


def begin_if_waiting(session: Session, version_id: str, now: datetime) -> None:
    """Let a rollout whose version became ready take its share."""
    query = select(Rollout).where(Rollout.version_id == version_id, Rollout.state == RolloutState.WAITING)
    for rollout in session.scalars(query.with_for_update()).all():
        rollout.state = RolloutState.RUNNING
        watch_versions(session, (rollout.stable_version_id, rollout.version_id), now)
        tell(session, "rollout.began", rollout, SYSTEM, now)


def was_taken_back(session: Session, deployment: Deployment) -> bool:
    """Whether the newest rollout of a deployment's version ended against it while this deployment stood."""
    newest = session.scalar(
        select(Rollout)
        .where(Rollout.version_id == deployment.version_id, Rollout.started_at >= deployment.created_at)
        .order_by(Rollout.started_at.desc(), Rollout.id.desc())
        .limit(1)
    )
    return newest is not None and newest.state is RolloutState.TAKEN_BACK


def end_rollouts_of(session: Session, version_id: str, *, reason_code: str, actor_id: str, now: datetime) -> None:
    """Take back what is under way from or to a version that stops."""
    either = (Rollout.version_id == version_id) | (Rollout.stable_version_id == version_id)
    for rollout in session.scalars(select(Rollout).where(either, Rollout.state.in_(UNDER_WAY))).all():
        end_rollout(session, rollout, RolloutState.TAKEN_BACK, reason_code, actor_id, now)


def end_rollout(
    session: Session, rollout: Rollout, state: RolloutState, reason: str | None, actor_id: str, now: datetime
) -> None:
    """Note how a rollout ended; the gateways send every call where it leads with their next snapshot."""
    rollout.state, rollout.reason_code, rollout.ended_at = state, reason, now
    end_watch(session, (rollout.stable_version_id, rollout.version_id))
    tell(session, f"rollout.{state}", rollout, actor_id, now, reason_code=reason)


def tell(session: Session, topic: str, rollout: Rollout, actor_id: str, now: datetime, **more: Any) -> None:
    """Write an event about a rollout."""
    record_event(
        session,
        topic,
        rollout.id,
        organisation_id=rollout.organisation_id,
        actor_id=actor_id,
        now=now,
        public_name=rollout.public_name,
        version_id=rollout.version_id,
        stable_version_id=rollout.stable_version_id,
        percent=rollout.percent,
        **more,
    )
