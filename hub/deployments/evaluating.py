"""Engines of purpose `evaluate`: started on demand for one version, never in the gateways' routes, ended when idle.

It leaves what is asked of them to the caller, who renews the wish by asking again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.service import root_base
from hub.catalogue.tables import ModelVersion
from hub.deployments.desired import bump_generation
from hub.deployments.endings import end_merged_set, find_merged_set
from hub.deployments.own_engines import enqueue_merge, needs_own_engine
from hub.deployments.sets import ensure_set
from hub.deployments.tables import Evaluation, ObservedAdapter, ObservedReplica, ReplicaSet
from hub.errors import NotFoundError
from hub.ids import new_id
from serving.contract import BASE_ENGINE_NAME, AdapterState, Purpose, ReplicaState, engine_name

LEASE = timedelta(minutes=2)
"""A wish that nobody renewed for so long is over: whoever made it is gone."""


@dataclass(frozen=True)
class Served:
    """A name that an engine answers to, at its address."""

    url: str
    name: str


@dataclass(frozen=True)
class EvaluationEngine:
    """Where a version answers now, and its base: beside it, or apart where the weights carry the version."""

    version: Served
    base: Served


@dataclass(frozen=True)
class EvaluationStatus:
    """`engine` once it answers; until then `reason_code` says what went wrong last, if anything did."""

    engine: EvaluationEngine | None
    reason_code: str | None = None


def request_evaluation(session: Session, version_id: str, *, subject: str, now: datetime) -> EvaluationStatus:
    """Ask for an engine with this version, or renew the wish; call again every few seconds until it answers.

    A version in quarantine may be evaluated. Raises:
        NotFoundError: no such version.
        NoCapacityError: no machine has room for another engine; ask again later.
    """
    version = session.get(ModelVersion, version_id)
    if version is None:
        raise NotFoundError.of("version", version_id)
    wish = _find_open(session, version_id, subject)
    if wish is None:
        base = root_base(session, version)
        rank = None if version.id == base.id or needs_own_engine(version) else version.rank
        replica_set = ensure_set(session, base, rank=rank, now=now, purpose=Purpose.EVALUATE)
        wish = Evaluation(
            id=new_id("evl"),
            organisation_id=version.organisation_id,
            version_id=version_id,
            set_id=replica_set.id,
            subject=subject,
            created_at=now,
            until_at=now + LEASE,
        )
        session.add(wish)
        session.flush()
        bump_generation(session)
    wish.until_at = now + LEASE
    if (
        needs_own_engine(version)
        and find_merged_set(session, version.artifact_digest, purpose=Purpose.EVALUATE) is None
    ):
        enqueue_merge(session, version, now=now)
    return _look(session, version, wish.set_id)


def release_evaluation(session: Session, version_id: str, *, subject: str, now: datetime) -> None:
    """End a wish; again changes nothing. The engine stays for the next one for a minute."""
    wish = _find_open(session, version_id, subject)
    if wish is not None:
        _end(session, wish, now)


def is_evaluated(session: Session, version_id: str) -> bool:
    """Return whether anybody wishes for an evaluation of a version now."""
    wished = select(Evaluation.id).where(Evaluation.version_id == version_id, Evaluation.ended_at.is_(None))
    return session.scalar(wished.limit(1)) is not None


def end_stale_evaluations(session: Session, *, now: datetime) -> int:
    """End every wish that nobody renewed in time; returns how many."""
    stale = session.scalars(select(Evaluation).where(Evaluation.ended_at.is_(None), Evaluation.until_at <= now)).all()
    for wish in stale:
        _end(session, wish, now)
    return len(stale)


def _end(session: Session, wish: Evaluation, now: datetime) -> None:
    wish.ended_at = now
    session.flush()
    left = select(Evaluation.id).where(Evaluation.set_id == wish.set_id, Evaluation.ended_at.is_(None)).limit(1)
    if session.scalar(left) is None:
        session.get_one(ReplicaSet, wish.set_id).idle_since_at = now
    version = session.get_one(ModelVersion, wish.version_id)
    merged = _find_merged(session, version)
    if merged is not None and not is_evaluated(session, version.id):
        end_merged_set(session, merged, now=now)
    bump_generation(session)


def _look(session: Session, version: ModelVersion, set_id: str) -> EvaluationStatus:
    ready, broken = _read_replicas(session, set_id)
    base = Served(next(iter(ready.values())), BASE_ENGINE_NAME) if ready else None
    if session.get_one(ReplicaSet, set_id).base_digest == version.artifact_digest:
        return EvaluationStatus(EvaluationEngine(base, base) if base else None, None if base else broken)
    name = engine_name(version.artifact_digest)
    if needs_own_engine(version):
        merged = _find_merged(session, version)
        carrying, unable = _read_replicas(session, merged.id) if merged else ({}, None)
        if base is None or not carrying:
            return EvaluationStatus(None, broken or unable)
        return EvaluationStatus(EvaluationEngine(Served(next(iter(carrying.values())), name), base))
    adapter = session.get(ObservedAdapter, version.artifact_digest)
    url = next((ready[replica] for replica in adapter.ready_on if replica in ready), None) if adapter else None
    if url is not None:
        return EvaluationStatus(EvaluationEngine(Served(url, name), Served(url, BASE_ENGINE_NAME)))
    failed = adapter is not None and adapter.state is AdapterState.FAILED
    return EvaluationStatus(None, adapter.reason_code if failed and adapter else broken)


def _find_merged(session: Session, version: ModelVersion) -> ReplicaSet | None:
    return find_merged_set(session, version.artifact_digest, purpose=Purpose.EVALUATE)


def _read_replicas(session: Session, set_id: str) -> tuple[dict[str, str], str | None]:
    """Addresses of the set's engines that answer, by replica, and why one of them does not."""
    replicas = session.scalars(select(ObservedReplica).where(ObservedReplica.set_id == set_id)).all()
    ready = {replica.replica_id: replica.url for replica in replicas if replica.state is ReplicaState.READY}
    return ready, next((replica.reason_code for replica in replicas if replica.state is ReplicaState.FAILED), None)


def _find_open(session: Session, version_id: str, subject: str) -> Evaluation | None:
    return session.scalar(
        select(Evaluation).where(
            Evaluation.version_id == version_id, Evaluation.subject == subject, Evaluation.ended_at.is_(None)
        )
    )
