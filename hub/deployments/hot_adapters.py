"""Merges hot adapters by the gain that the pool measured, and splits them off when it is gone.

It leaves measuring to the pool, the merge itself to `merging` and what a gain is worth to `rules`. What the operator
merged stays merged.
"""

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.service import root_base
from hub.catalogue.tables import ModelVersion
from hub.compute.allocation import ENGINE_GIB, count_free_places
from hub.compute.tables import HoldState, Slot
from hub.deployments.endings import find_merged_set
from hub.deployments.merging import ASKED, CHOSEN, end_merge
from hub.deployments.own_engines import MERGE_KIND, enqueue_merge
from hub.deployments.policies import find_policy
from hub.deployments.rules import MergeCase, is_worth_merging
from hub.deployments.tables import Deployment, DeploymentState, ReplicaSet, SetState
from hub.events.service import SYSTEM, record_event
from hub.events.tables import Event
from hub.jobs.tables import Job
from serving.contract import Observed, ObservedAdapter, Purpose

ENGINE_BYTES = ENGINE_GIB * 2**30
TRIED_AGAIN_AFTER = timedelta(hours=1)
"""A merge that ended, well or not, is not chosen again sooner."""


def choose_merges(session: Session, message: Observed, *, now: datetime) -> None:
    """Look at every adapter whose gain was measured."""
    for item in message.adapters:
        if item.speed_up_percent is not None:
            _choose(session, item, item.speed_up_percent, now)


def _choose(session: Session, item: ObservedAdapter, speed_up_percent: int, now: datetime) -> None:
    version = _find_serving(session, item.digest)
    if version is None or version.base_version_id is None:
        return
    merged = find_merged_set(session, item.digest)
    case = MergeCase(
        traffic_share=item.share_percent / 100,
        speed_up=speed_up_percent / 100,
        engine_bytes=ENGINE_BYTES,
        free_bytes=count_free_places(session) * ENGINE_BYTES,
        is_merged=merged is not None,
    )
    if is_worth_merging(case):
        if merged is None and _may_own_an_engine(session, version) and not _was_tried(session, version, now):
            _record_choice(session, version, item, now)
            enqueue_merge(session, version, now=now)
    elif merged is not None and _was_chosen(session, version):
        end_merge(session, version, merged, actor_id=SYSTEM, now=now)


def _find_serving(session: Session, digest: str) -> ModelVersion | None:
    """Return the version under which an adapter is served now."""
    return session.scalar(
        select(ModelVersion)
        .join(Deployment, Deployment.version_id == ModelVersion.id)
        .where(Deployment.digest == digest, Deployment.state == DeploymentState.READY, Deployment.until_at.is_(None))
        .limit(1)
    )


def _may_own_an_engine(session: Session, version: ModelVersion) -> bool:
    """Whether the operator lets the base have one engine more than run for it, merged ones included."""
    base = root_base(session, version)
    held = session.scalar(
        select(func.count())
        .select_from(Slot)
        .join(ReplicaSet, ReplicaSet.id == Slot.set_id)
        .where(
            Slot.state == HoldState.ACTIVE,
            ReplicaSet.state == SetState.WANTED,
            ReplicaSet.purpose == Purpose.SERVE,
            ReplicaSet.base_digest == base.artifact_digest,
        )
    )
    return (held or 0) < find_policy(session, base.id).max


def _was_tried(session: Session, version: ModelVersion, now: datetime) -> bool:
    lately = Job.created_at > now - TRIED_AGAIN_AFTER
    known = select(Job.id).where(Job.kind == MERGE_KIND, Job.subject == version.id, lately).limit(1)
    return session.scalar(known) is not None


def _was_chosen(session: Session, version: ModelVersion) -> bool:
    """Whether the last word on merging was not the operator's."""
    topics = select(Event.topic).where(Event.subject == version.id, Event.topic.in_((ASKED, CHOSEN)))
    return session.scalar(topics.order_by(Event.seq.desc()).limit(1)) == CHOSEN


def _record_choice(session: Session, version: ModelVersion, item: ObservedAdapter, now: datetime) -> None:
    record_event(
        session,
        CHOSEN,
        version.id,
        organisation_id=version.organisation_id,
        actor_id=SYSTEM,
        now=now,
        share_percent=item.share_percent,
        speed_up_percent=item.speed_up_percent,
    )
