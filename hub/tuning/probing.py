"""The probe job: asks both versions of a rollout the same cases on the engine and tells the rollout how they scored.

The cases are the owner's, else those that the new version's fine-tuning run held out. It leaves taking the rollout
back to `hub.deployments.rollouts`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import fmean
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.deployments.rollouts import note_probe
from hub.deployments.tables import ObservedAdapter, ObservedReplica, Rollout, RolloutState
from hub.jobs.service import Claim, enqueue_job, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, later, run_beside, try_again
from hub.tuning.engine_questions import EngineRefusedError, Question, answer_chats, answer_greedily
from hub.tuning.examining import collect_questions
from hub.tuning.kinds import PROBE_KIND
from hub.tuning.progress import locate_attempt
from hub.tuning.scoring import overlap_f1
from hub.tuning.tables import Run
from serving.contract import ReplicaState, engine_name

ANSWER_TOKENS = 128
MOST_QUESTIONS = 50
_WAIT_S = 1.0
_RETRY_S = 5.0
_MAX_FAILURES = 3


@dataclass(frozen=True)
class _Asked:
    """What the slow call needs: address and name of each version, the owner's cases or the run's questions."""

    stable: tuple[str, str]
    candidate: tuple[str, str]
    cases: Sequence[dict[str, str]]
    questions: Sequence[Question]


def queue_probes(session: Session, *, now: datetime) -> int:
    """Queue the probe of every running rollout that was not probed yet; returns how many."""
    query = select(Rollout).where(Rollout.state == RolloutState.RUNNING)
    waiting = [row for row in session.scalars(query) if row.probe is None]
    for row in waiting:
        enqueue_job(
            session,
            kind=PROBE_KIND,
            subject=row.id,
            organisation_id=row.organisation_id,
            now=now,
            max_failures=_MAX_FAILURES,
        )
    return len(waiting)


def probe_rollout(work: Work, claim: Claim) -> Verdict:
    """One pass: start the questions in the background, later tell the rollout the scores."""

    def begin() -> Callable[[], dict[str, Any]] | Verdict:
        if not _is_running(work, claim):
            return _drop(work, claim)
        asked = _collect(work, claim)
        return later(_WAIT_S) if asked is None else partial(_ask, asked)

    return run_beside(
        work,
        claim,
        begin=begin,
        take=lambda scores: _note(work, claim, scores),
        errors=dict.fromkeys(
            (OSError, EngineRefusedError), try_again("the engine does not answer the probe", after_s=_RETRY_S)
        ),
    )


def _note(work: Work, claim: Claim, scores: dict[str, Any]) -> Verdict:
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        note_probe(session, claim.subject, scores, now=now)
        finish_job(session, claim, now=now)
    return DONE


def _is_running(work: Work, claim: Claim) -> bool:
    with work.sessions.read() as session:
        return session.get_one(Rollout, claim.subject).state is RolloutState.RUNNING


def _drop(work: Work, claim: Claim) -> Verdict:
    """A rollout that is over needs no scores."""
    with work.sessions.write() as session:
        finish_job(session, claim, now=work.clock())
    return DONE


def _collect(work: Work, claim: Claim) -> _Asked | None:
    with work.sessions.read() as session:
        rollout = session.get_one(Rollout, claim.subject)
        digests = [
            session.get_one(ModelVersion, key).artifact_digest
            for key in (rollout.stable_version_id, rollout.version_id)
        ]
        stable, candidate = (_find_engine(session, digest) for digest in digests)
        run = session.scalar(select(Run).where(Run.version_id == rollout.version_id))
    if stable is None or candidate is None:
        return None
    questions: Sequence[Question] = ()
    if run is not None and not rollout.cases:
        out = locate_attempt(work.settings.home, run.id, run.attempt)
        found = collect_questions(out, None, max_tokens=ANSWER_TOKENS)
        questions = found.task[:MOST_QUESTIONS] if found is not None else ()
    return _Asked(stable, candidate, rollout.cases, questions)


def _find_engine(session: Session, digest: str) -> tuple[str, str] | None:
    """Return the address of an engine on which an adapter answers, in a slot or merged, and its name there."""
    adapter = session.get(ObservedAdapter, digest)
    ready = select(ObservedReplica.url).where(
        ObservedReplica.replica_id.in_(adapter.ready_on if adapter else ()), ObservedReplica.state == ReplicaState.READY
    )
    url = session.scalar(ready.order_by(ObservedReplica.replica_id).limit(1))
    return None if url is None else (url, engine_name(digest))


def _ask(asked: _Asked) -> dict[str, Any]:
    """Return the mean F1 of both versions; no case at all scores nothing and judges nothing."""
    expected = [case["expected"] for case in asked.cases] or [question.expected for question in asked.questions]
    if not expected:
        return {"cases": 0, "measure": "f1", "stable": 0.0, "candidate": 0.0}
    scores = {}
    for role, (url, name) in (("stable", asked.stable), ("candidate", asked.candidate)):
        texts = _answer(asked, url, name)
        scores[role] = round(fmean(overlap_f1(text, want) for text, want in zip(texts, expected, strict=True)), 6)
    return {"cases": len(expected), "measure": "f1", **scores}


def _answer(asked: _Asked, url: str, name: str) -> list[str]:
    if asked.cases:
        return answer_chats(url, name, [case["prompt"] for case in asked.cases], max_tokens=ANSWER_TOKENS)
    return [answer.text for answer in answer_greedily(url, name, asked.questions, max_tokens=ANSWER_TOKENS)]
