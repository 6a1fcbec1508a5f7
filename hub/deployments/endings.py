"""How one deployment ends: its alias falls back, its change is told.

It leaves who may end it to `hub.deployments.service` and when nobody needs its engines to `hub.deployments.idle`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute.allocation import release_slot
from hub.deployments.aliases import drop_alias, find_alias
from hub.deployments.rollout_state import end_rollouts_of
from hub.deployments.tables import Deployment, DeploymentState, ReplicaSet, SetState
from hub.events.service import record_event
from serving.contract import Purpose


def stop_deployment(session: Session, deployment: Deployment, *, actor_id: str, now: datetime) -> None:
    """End a deployment; its alias goes back to the version before it if that is ready."""
    deployment.state, deployment.stopped_at = DeploymentState.STOPPED, now
    end_rollouts_of(session, deployment.version_id, reason_code="undeployed", actor_id=actor_id, now=now)
    session.flush()
    drop_alias(session, deployment, before=_find_before(session, deployment), actor_id=actor_id, now=now)
    merged = find_merged_set(session, deployment.digest)
    if merged is not None:
        end_merged_set(session, merged, now=now)
    record_change(session, "deployment.stopped", deployment, actor_id, now)


def find_ready(session: Session, version_id: str | None) -> Deployment | None:
    """Return the deployment of a version that answers now."""
    if version_id is None:
        return None
    return session.scalar(
        select(Deployment).where(Deployment.version_id == version_id, Deployment.state == DeploymentState.READY)
    )


def record_change(session: Session, topic: str, deployment: Deployment, actor_id: str, now: datetime) -> None:
    """Tell the event log what happened to a deployment."""
    record_event(
        session,
        topic,
        deployment.id,
        organisation_id=deployment.organisation_id,
        actor_id=actor_id,
        now=now,
        version_id=deployment.version_id,
        public_name=deployment.public_name,
    )


def _find_before(session: Session, deployment: Deployment) -> Deployment | None:
    alias = find_alias(session, deployment.public_name.rpartition("@")[0])
    return None if alias is None else find_ready(session, alias.previous_version_id)


def find_merged_set(session: Session, digest: str, *, purpose: Purpose = Purpose.SERVE) -> ReplicaSet | None:
    """Return the wanted set of a purpose whose weights carry an adapter."""
    return session.scalar(
        select(ReplicaSet)
        .where(
            ReplicaSet.serves_digest == digest,
            ReplicaSet.base_digest != digest,
            ReplicaSet.purpose == purpose,
            ReplicaSet.state == SetState.WANTED,
        )
        .with_for_update()
    )


def end_merged_set(session: Session, found: ReplicaSet, *, now: datetime) -> None:
    """End an engine set of merged weights; its adapter is loaded into the base's engines again where deployed."""
    found.state = SetState.STOPPED
    release_slot(session, found.id, now=now)
