"""The gate job: asks an engine of purpose `evaluate` about a trained adapter, and publishes it or holds it back.

It leaves what the figures decide to `hub.tuning.gate`, the questions to `hub.tuning.examining`, money to `endings`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Fault
from hub.catalogue.tables import ModelVersion
from hub.compute.service import NoCapacityError
from hub.datasets.service import locate_checked
from hub.datasets.tables import DatasetVersion
from hub.deployments.evaluating import EvaluationStatus, release_evaluation, request_evaluation
from hub.deployments.rules import choose_context_tokens
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.tables import Job
from hub.jobs.work import DONE, Verdict, Work, failed, later, run_beside, try_again
from hub.tuning.endings import end_failed, settle_run
from hub.tuning.engine_questions import EngineRefusedError
from hub.tuning.examining import Asked, collect_questions, examine, write_cases
from hub.tuning.gate import Examination, Unmeasured, describe_unmeasured, is_our_fault, judge
from hub.tuning.moves import move_run
from hub.tuning.progress import locate_attempt, locate_run
from hub.tuning.publishing import publish_candidate, quarantine_candidate
from hub.tuning.refunding import refund_settled
from hub.tuning.states import RunState
from hub.tuning.tables import Run

ENGINE_WAIT, BROKEN_WAIT = timedelta(minutes=15), timedelta(seconds=90)
"""How long an engine is waited for, and how long one that says why it cannot."""
_WAIT_S, _RETRY_S = 2.0, 5.0
_PASSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that say nothing of the question: an engine that just lost the adapter, or has too much to do."""
_RULE = "serving_engine"
_KEPT = ("trained", "override", "served")
"""What a run's gate holds beside the newest measuring."""


@dataclass(frozen=True)
class _Look:
    """What one short look found: an engine, or since when none is there and why."""

    run: Run
    version: ModelVersion
    status: EvaluationStatus
    waited: timedelta


def gate_run(work: Work, claim: Claim) -> Verdict:
    """One pass: wish for an engine, ask it in the background, then conclude."""

    def take(found: Examination) -> Verdict:
        write_cases(locate_run(work.settings.home, claim.subject), found)
        return conclude_gate(work, claim, judge(found))

    def take_refused(error: EngineRefusedError) -> Verdict:
        passing = error.status in _PASSING or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if passing and _read_waited(work, claim) <= ENGINE_WAIT:
            return failed(f"the engine answered {error.status}", retry_after_s=_RETRY_S)
        return _give_up(work, claim, Unmeasured.ENGINE_REFUSED, f"the engine answered {error.status}")

    return run_beside(
        work,
        claim,
        begin=lambda: _begin(work, claim),
        take=take,
        errors={
            EngineRefusedError: take_refused,
            OSError: try_again("the engine does not answer", after_s=_RETRY_S),
        },
    )


def conclude_gate(work: Work, claim: Claim, gate: Mapping[str, Any]) -> Verdict:
    """Publish or hold, settle the money and let the engine go, in one transaction."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        kept = {name: value for name, value in (run.gate or {}).items() if name in _KEPT}
        run.gate = kept | dict(gate) | {"rule": _RULE, "at": now.isoformat()}
        release_evaluation(session, run.candidate_version_id or "", subject=run.id, now=now)
        if run.state is RunState.GATING:
            _end_gating(session, run, now)
        else:
            _conclude_again(session, run, now)
        finish_job(session, claim, now=now)
    return DONE


def _conclude_again(session: Session, run: Run, now: datetime) -> None:
    """A held run stays held, as its bill is; its version may be published now, or found not to be what was trained."""
    gate = run.gate or {}
    record_event(
        session,
        "run.measured",
        run.id,
        organisation_id=run.organisation_id,
        actor_id=SYSTEM,
        now=now,
        reason_code=gate["code"],
    )
    if gate["passed"] and run.version_id is None:
        publish_candidate(session, run, now=now)
    elif is_our_fault(gate):
        quarantine_candidate(session, run, gate["code"], now=now)
        refund_settled(session, run, gate["code"], now=now)


def _begin(work: Work, claim: Claim) -> Callable[[], Examination] | Verdict:
    try:
        look = _look(work, claim)
    except NoCapacityError:
        if _read_waited(work, claim) > ENGINE_WAIT:
            return _give_up(work, claim, Unmeasured.NO_ROOM, "no room for an engine")
        return later(_RETRY_S)
    engine = look.status.engine
    if engine is not None:
        asked = _collect(work, look)
        if asked is None:
            return _give_up(work, claim, Unmeasured.NO_ROWS, "no held-out row was kept that fits the engine's context")
        return partial(examine, engine.base, engine.version, asked)
    reason = look.status.reason_code
    if look.waited > (BROKEN_WAIT if reason else ENGINE_WAIT):
        why = Unmeasured.ENGINE_FAILED if reason else Unmeasured.NO_ENGINE
        return _give_up(work, claim, why, reason or "no engine came up")
    return later(_WAIT_S)


def _give_up(work: Work, claim: Claim, why: Unmeasured, reason: str) -> Verdict:
    return conclude_gate(work, claim, describe_unmeasured(why, reason))


def _read_waited(work: Work, claim: Claim) -> timedelta:
    with work.sessions.read() as session:
        return work.clock() - session.get_one(Job, claim.job_id).created_at


def _look(work: Work, claim: Claim) -> _Look:
    now = work.clock()
    with work.sessions.write() as session:
        job = require_lock(session, claim)
        run = session.get_one(Run, claim.subject)
        version = session.get_one(ModelVersion, run.candidate_version_id or "")
        status = request_evaluation(session, version.id, subject=run.id, now=now)
        return _Look(run, version, status, now - job.created_at)


def _collect(work: Work, look: _Look) -> Asked | None:
    run = look.run
    with work.sessions.read() as session:
        data = session.get_one(DatasetVersion, run.dataset_version_id)
    recipe = (run.plan or {}).get("recipe", {})
    return collect_questions(
        locate_attempt(work.settings.home, run.id, run.attempt),
        locate_checked(work.settings.home, data) / "valid.jsonl",
        max_tokens=int(recipe["max_new_tokens"]["value"]) if "max_new_tokens" in recipe else 64,
        context_tokens=choose_context_tokens(look.version.facts),
    )


def _end_gating(session: Session, run: Run, now: datetime) -> None:
    gate = run.gate or {}
    if gate["passed"]:
        early = gate.get("trained") == "early_stopped"
        move_run(session, run, RunState.PUBLISHING, now=now)
        target = RunState.EARLY_STOPPED if early else RunState.SUCCEEDED
        move_run(session, run, target, now=now, reason_code="no_more_gain" if early else "done")
        publish_candidate(session, run, now=now)
    elif is_our_fault(gate):
        quarantine_candidate(session, run, gate["code"], now=now)
        message = "the engine does not run what was trained; nothing is billed"
        end_failed(session, run, reason_code=gate["code"], fault=Fault.PLATFORM, message=message, now=now)
        return
    else:
        move_run(session, run, RunState.HELD, now=now, reason_code=gate["code"], fault=Fault.NONE)
        if not gate.get("parity", {"passed": True})["passed"]:
            quarantine_candidate(session, run, gate["parity"]["code"], now=now)
    settle_run(session, run, now)
