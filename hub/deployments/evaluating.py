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
from hub.deployments.sets import ensure_set
from hub.deployments.tables import Evaluation, ObservedAdapter, ObservedReplica, ReplicaSet
from hub.errors import NotFoundError
from hub.ids import new_id
from serving.contract import BASE_ENGINE_NAME, AdapterState, Purpose, ReplicaState, engine_name

LEASE = timedelta(minutes=2)
"""A wish that nobody renewed for so long is over: whoever made it is gone."""


@dataclass(frozen=True)
class EvaluationEngine:
    """An engine that answers now: its address, what it calls the version, and what it calls the base beside it."""

    url: str
    name: str
    base_name: str = BASE_ENGINE_NAME


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
        rank = None if version.id == base.id else version.rank
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
    return _look(session, version, wish.set_id)


def release_evaluation(session: Session, version_id: str, *, subject: str, now: datetime) -> None:
    """End a wish; again changes nothing. The engine stays for the next one for a minute."""
    wish = _find_open(session, version_id, subject)
    if wish is not None:
        _end(session, wish, now)


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
    bump_generation(session)


def _look(session: Session, version: ModelVersion, set_id: str) -> EvaluationStatus:
    replicas = session.scalars(select(ObservedReplica).where(ObservedReplica.set_id == set_id)).all()
    ready = {replica.replica_id: replica.url for replica in replicas if replica.state is ReplicaState.READY}
    broken = next((replica.reason_code for replica in replicas if replica.state is ReplicaState.FAILED), None)
    if session.get_one(ReplicaSet, set_id).base_digest == version.artifact_digest:
        url = next(iter(ready.values()), None)
        return EvaluationStatus(EvaluationEngine(url, BASE_ENGINE_NAME) if url else None, None if url else broken)
    adapter = session.get(ObservedAdapter, version.artifact_digest)
    url = next((ready[name] for name in adapter.ready_on if name in ready), None) if adapter else None
    if url is not None:
        return EvaluationStatus(EvaluationEngine(url, engine_name(version.artifact_digest)))
    failed = adapter is not None and adapter.state is AdapterState.FAILED
    return EvaluationStatus(None, adapter.reason_code if failed and adapter else broken)


def _find_open(session: Session, version_id: str, subject: str) -> Evaluation | None:
    return session.scalar(
        select(Evaluation).where(
            Evaluation.version_id == version_id, Evaluation.subject == subject, Evaluation.ended_at.is_(None)
        )
    )
