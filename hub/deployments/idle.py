"""Keeps the engines of a base warm for a while after the last model on it was undeployed, then ends them.

An engine takes 10 to 60 s to start: a deployment soon after an undeployment finds one running.
It leaves who asked for what to `hub.deployments.service`, and stopping processes to the pool.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute.allocation import release_slot
from hub.deployments.desired import bump_generation
from hub.deployments.endings import stop_deployment
from hub.deployments.tables import Deployment, DeploymentState, ReplicaSet, SetState
from hub.events.service import SYSTEM


def note_demand(session: Session, set_id: str, *, now: datetime) -> None:
    """Note whether anybody still asks for a set: an implied base alone does not keep it."""
    open_here = select(Deployment).where(Deployment.set_id == set_id, Deployment.state != DeploymentState.STOPPED)
    asked = any(not deployment.implied for deployment in session.scalars(open_here))
    found = session.get_one(ReplicaSet, set_id)
    found.idle_since_at = None if asked else found.idle_since_at or now


def end_idle_sets(session: Session, *, now: datetime, keep_warm: timedelta | None = None) -> int:
    """End every set that nobody asked for during its `idle_s`, or `keep_warm` where given; returns how many.

    The implied base on it ends too.
    """
    waiting = session.scalars(
        select(ReplicaSet)
        .where(ReplicaSet.state == SetState.WANTED, ReplicaSet.idle_since_at.is_not(None))
        .order_by(ReplicaSet.id)
        .with_for_update()
    ).all()
    idle = [row for row in waiting if _is_over(row, now, keep_warm)]
    for row in idle:
        left = select(Deployment).where(Deployment.set_id == row.id, Deployment.state != DeploymentState.STOPPED)
        for deployment in session.scalars(left).all():
            stop_deployment(session, deployment, actor_id=SYSTEM, now=now)
        row.state = SetState.STOPPED
        release_slot(session, row.id, now=now)
    if idle:
        bump_generation(session)
    return len(idle)


def _is_over(row: ReplicaSet, now: datetime, keep_warm: timedelta | None) -> bool:
    kept = timedelta(seconds=row.idle_s) if keep_warm is None else keep_warm
    return row.idle_since_at is not None and row.idle_since_at <= now - kept
