"""The prove job: asks the engine that serves a run's version whether it is the adapter that was trained.

A version that is not is quarantined. What the engine answered before and after stands on the run. It leaves the
figures to `hub.tuning.gate` and loading to the pool.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.quarantine import quarantine_version
from hub.catalogue.tables import ModelVersion, VersionState
from hub.deployments.tables import Deployment, DeploymentState, ObservedAdapter, ObservedReplica
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, enqueue_job, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, again, failed, later
from hub.tuning.engine_questions import EngineRefusedError, Question, answer_greedily, measure_logprobs
from hub.tuning.gate import Case, LogProbs, Parity, judge_parity, score_cases
from hub.tuning.kinds import PROVE_KIND
from hub.tuning.progress import locate_attempt
from hub.tuning.tables import Run
from serving.contract import BASE_ENGINE_NAME, ReplicaState, engine_name

EVALUATION_NAME = "evaluation.jsonl"
PARITY_ROWS = 16
SHOWN_CASES = 12
_TOPICS = {"proven": "run.proven", "not_measured": "run.proof_missing"}
_POLL_S = 0.3
_WAIT_S = 2.0
_RETRY_S = 5.0
_MAX_FAILURES = 5


@dataclass(frozen=True)
class _Asked:
    """What the slow call needs: where, which name, which rows with the trainer's own log-probabilities."""

    url: str
    name: str
    questions: Sequence[Question]
    trained_base: Sequence[float]
    trained_adapter: Sequence[float]
    max_tokens: int


def prove_version(work: Work, claim: Claim) -> Verdict:
    """One pass: start the questions in the background, later judge their answers."""
    pending = work.pending.get(claim.job_id)
    if pending is None:
        asked = _collect(work, claim)
        if asked is None:
            return later(_WAIT_S)
        work.pending[claim.job_id] = work.slow.submit(_ask, asked)
        return again(_POLL_S)
    if not pending.done():
        return again(_POLL_S)
    del work.pending[claim.job_id]
    try:
        parity, scores = pending.result()
    except OSError as error:
        return failed(f"the engine does not answer: {error}", retry_after_s=_RETRY_S)
    _note(work, claim, parity, scores)
    return DONE


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


def is_refuted(gate: Mapping[str, Any] | None) -> bool:
    """Return whether a proof was made and failed; an engine that could not be asked refutes nothing."""
    served = (gate or {}).get("served") or {}
    return not served.get("passed", True) and served["code"] != "not_measured"


def read_questions(path: Path) -> list[tuple[Question, dict[str, Any]]]:
    """Return the evaluated rows whose tokens the trainer kept, each with its line; empty without the file."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        (Question(line["ids"], [(start, end) for start, end in line["learn"]], line["expected"]), line)
        for line in lines
        if "ids" in line
    ]


def _collect(work: Work, claim: Claim) -> _Asked | None:
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.subject)
        version = session.get_one(ModelVersion, run.version_id or "")
        url = _find_engine(session, version)
    found = read_questions(locate_attempt(work.settings.home, run.id, run.attempt) / EVALUATION_NAME)
    if url is None:
        return None
    recipe = (run.plan or {}).get("recipe", {})
    return _Asked(
        url=url,
        name=engine_name(version.artifact_digest),
        questions=[question for question, _ in found],
        trained_base=[float(line["base_logprob"]) for _, line in found[:PARITY_ROWS]],
        trained_adapter=[float(line["adapter_logprob"]) for _, line in found[:PARITY_ROWS]],
        max_tokens=int(recipe["max_new_tokens"]["value"]) if "max_new_tokens" in recipe else 64,
    )


def _find_engine(session: Session, version: ModelVersion) -> str | None:
    adapter = session.get(ObservedAdapter, version.artifact_digest)
    if adapter is None:
        return None
    ready = select(ObservedReplica.url).where(
        ObservedReplica.replica_id.in_(adapter.ready_on), ObservedReplica.state == ReplicaState.READY
    )
    return session.scalar(ready.order_by(ObservedReplica.replica_id).limit(1))


def _ask(asked: _Asked) -> tuple[Parity, dict[str, Any]]:
    if not asked.questions:
        return Parity(False, "not_measured", {}), {}
    part = asked.questions[: len(asked.trained_base)]
    try:
        served = [measure_logprobs(asked.url, name, part) for name in (BASE_ENGINE_NAME, asked.name)]
        texts = [
            answer_greedily(asked.url, name, asked.questions, max_tokens=asked.max_tokens)
            for name in (BASE_ENGINE_NAME, asked.name)
        ]
    except EngineRefusedError as error:
        # Only an unknown name says something about the adapter; a row too long for the engine says nothing.
        code = "adapter_not_loaded" if error.status == HTTPStatus.NOT_FOUND else "not_measured"
        return Parity(False, code, {"status": float(error.status)}), {}
    parity = judge_parity(LogProbs(asked.trained_base, asked.trained_adapter, served[0], served[1]))
    cases = [
        Case(question.expected, base, adapter)
        for question, base, adapter in zip(asked.questions, texts[0], texts[1], strict=True)
    ]
    scores = score_cases(cases)
    scores["cases"] = [vars(case) for case in cases[:SHOWN_CASES]]
    return parity, scores


def _note(work: Work, claim: Claim, parity: Parity, scores: dict[str, Any]) -> None:
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        proof = {"passed": parity.passed, "code": parity.code, "at": now.isoformat(), **parity.figures}
        run.gate = (run.gate or {}) | {"served": proof, "scores": scores}
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
            _quarantine(session, version, parity, now)
        finish_job(session, claim, now=now)


def _quarantine(session: Session, version: ModelVersion, parity: Parity, now: datetime) -> None:
    gate = Actor(SYSTEM, version.organisation_id, Role.OPERATOR)
    quarantine_version(
        session,
        gate,
        version.id,
        reason_en=f"the served adapter is not the trained one ({parity.code}); see the proof on its run",
        reason_zh=f"服务端的适配器与训练结果不一致（{parity.code}），详见训练任务的核验记录",
        now=now,
    )
