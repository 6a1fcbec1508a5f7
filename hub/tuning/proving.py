"""The prove job: asks the engine that serves a run's version whether it is the adapter that was trained.

A version that is not is quarantined. The gate asked an engine of its own before; this is the one that callers reach.
It leaves the figures to `hub.tuning.gate` and loading to the pool.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion, VersionState
from hub.deployments.evaluating import Served
from hub.deployments.tables import Deployment, DeploymentState, ObservedAdapter, ObservedReplica, ReplicaSet
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, enqueue_job, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, later, run_beside, try_again
from hub.tuning.engine_questions import EngineRefusedError, measure_logprobs
from hub.tuning.examining import PARITY_ROWS, Asked, collect_questions
from hub.tuning.gate import LogProbs, Parity, is_refuted, judge_parity
from hub.tuning.kinds import PROVE_KIND
from hub.tuning.progress import locate_attempt
from hub.tuning.publishing import quarantine_candidate
from hub.tuning.refunding import refund_settled
from hub.tuning.tables import Run
from serving.contract import BASE_ENGINE_NAME, Purpose, ReplicaState, engine_name

_TOPICS = {"proven": "run.proven", "not_measured": "run.proof_missing"}
_WAIT_S = 2.0
_RETRY_S = 5.0
_MAX_FAILURES = 5


@dataclass(frozen=True)
class _Asked:
    """What the slow call needs: base and adapter as served, the rows with the trainer's log-probabilities, if kept."""

    base: Served
    adapter: Served
    rows: Asked | None


def prove_version(work: Work, claim: Claim) -> Verdict:
    """One pass: start the questions in the background, later judge their answers."""

    def begin() -> Callable[[], Parity] | Verdict:
        asked = _collect(work, claim)
        return later(_WAIT_S) if asked is None else partial(_ask, asked)

    return run_beside(
        work,
        claim,
        begin=begin,
        take=lambda parity: _note(work, claim, parity),
        errors={OSError: try_again("the engine does not answer", after_s=_RETRY_S)},
    )


def queue_proofs(session: Session, *, now: datetime) -> int:
    """Queue the proof of every served version of a run that has none yet; returns how many."""
    rows = session.execute(
        select(Run, Deployment)
        .join(Deployment, Deployment.version_id == Run.version_id)
        .join(ModelVersion, ModelVersion.id == Run.version_id)
        .where(Deployment.state == DeploymentState.READY, ModelVersion.state != VersionState.QUARANTINED)
        .order_by(Run.id)
    ).all()
    waiting = [run for run, _ in rows if "served" not in (run.gate or {})]
    for run in waiting:
        enqueue_job(
            session,
            kind=PROVE_KIND,
            subject=run.id,
            organisation_id=run.organisation_id,
            now=now,
            max_failures=_MAX_FAILURES,
        )
    return len(waiting)


def _collect(work: Work, claim: Claim) -> _Asked | None:
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.subject)
        version = session.get_one(ModelVersion, run.version_id or "")
        engines = _find_engines(session, version)
    if engines is None:
        return None
    base, adapter = engines
    found = collect_questions(locate_attempt(work.settings.home, run.id, run.attempt), None, max_tokens=1)
    return _Asked(base, adapter, found)


def _find_engines(session: Session, version: ModelVersion) -> tuple[Served, Served] | None:
    """Where callers reach the base and the adapter; None while one of them does not answer.

    Weights that carry the adapter answer to the base's name too, so the base is asked on an engine of its own.
    """
    adapter = session.get(ObservedAdapter, version.artifact_digest)
    ready = (
        select(ObservedReplica.replica_id, ObservedReplica.url, ReplicaSet.serves_digest, ReplicaSet.base_digest)
        .join(ReplicaSet, ReplicaSet.id == ObservedReplica.set_id)
        .join(Deployment, or_(Deployment.set_id == ReplicaSet.id, Deployment.digest == ReplicaSet.serves_digest))
        .where(Deployment.version_id == version.id, Deployment.state != DeploymentState.STOPPED)
        .where(ObservedReplica.state == ReplicaState.READY, ReplicaSet.purpose == Purpose.SERVE)
        .order_by(ObservedReplica.replica_id)
    )
    rows = session.execute(ready).all()
    bases = {row.replica_id: row.url for row in rows if row.serves_digest == row.base_digest}
    hosts = {row.replica_id: row.url for row in rows if adapter is not None and row.replica_id in adapter.ready_on}
    if not bases or not hosts:
        return None
    name, url = next(iter(hosts.items()))
    base_url = bases.get(name, next(iter(bases.values())))
    return Served(base_url, BASE_ENGINE_NAME), Served(url, engine_name(version.artifact_digest))


def _ask(asked: _Asked) -> Parity:
    if asked.rows is None:
        return Parity(False, "not_measured", {})
    part = asked.rows.task[:PARITY_ROWS]
    try:
        served = [measure_logprobs(one.url, one.name, part) for one in (asked.base, asked.adapter)]
    except EngineRefusedError as error:
        # Only an unknown name says something about the adapter; a row too long for the engine says nothing.
        code = "adapter_not_loaded" if error.status == HTTPStatus.NOT_FOUND else "not_measured"
        return Parity(False, code, {"status": float(error.status)})
    return judge_parity(LogProbs(asked.rows.trained_base, asked.rows.trained_adapter, served[0], served[1]))


def _note(work: Work, claim: Claim, parity: Parity) -> Verdict:
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        proof = {"passed": parity.passed, "code": parity.code, "at": now.isoformat(), **parity.figures}
        run.gate = (run.gate or {}) | {"served": proof}
        record_event(
            session,
            _TOPICS.get(parity.code, "run.proof_failed"),
            run.id,
            organisation_id=run.organisation_id,
            actor_id=SYSTEM,
            now=now,
            reason_code=parity.code,
        )
        version = session.get_one(ModelVersion, run.version_id or "")
        if is_refuted(run.gate) and version.state is not VersionState.QUARANTINED:
            quarantine_candidate(session, run, parity.code, now=now)
            refund_settled(session, run, parity.code, now=now)
        finish_job(session, claim, now=now)
    return DONE
