"""How an attempt ends: on to the gate, retried, cancelled or failed, with the money settled in the same transaction.

It leaves amounts to `hub.orders`, versions to the catalogue and bytes to the artefact store.
"""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import Fault, Result, State
from hub.compute.service import release
from hub.jobs.service import Claim, finish_job, has_open_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, again
from hub.orders.service import refund_order, settle_order
from hub.orders.tables import Fault as OrderFault
from hub.tuning import rules
from hub.tuning.following import sum_earlier_rentals
from hub.tuning.kinds import GATE_KIND, ORDER_KIND, PLAN_KIND, TRAIN_KIND
from hub.tuning.moves import move_run
from hub.tuning.progress import find_commit
from hub.tuning.states import AttemptState, RunState
from hub.tuning.tables import Run, RunAttempt

_RETRY_S = 2.0
_NO_LOSS = ("preempted", "paused", "out_of_memory", rules.NAN_LOSS)
"""Ends of attempts that say nothing against the machine: the owner's pause, another's turn, what is tried otherwise."""
_WORK_FAILED = ("internal", "the work could not be completed after several tries")
_ORDERING_FAILED = (
    "ordering_failed",
    "the order could not be placed after several tries; no money was held; create the job again, or ask the operator.",
)
_DONE_STATES = (State.SUCCEEDED, State.EARLY_STOPPED)
_ORDER_FAULTS = {
    Fault.USER: OrderFault.USER,
    Fault.PROVIDER: OrderFault.PROVIDER,
    Fault.PLATFORM: OrderFault.PLATFORM,
    Fault.NONE: OrderFault.PLATFORM,
}


def end_attempt(
    work: Work, claim: Claim, *, result: Result | None, exit_code: int | None, why: rules.NoResult = rules.LOST
) -> Verdict:
    """Apply the end of the current attempt; `result` None: it left none, and `why`."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        _close_attempt(session, run, result, exit_code=exit_code, why=why, now=now)
        if result is not None and result.state in _DONE_STATES:
            _begin_gating(session, run, result, now)
            return again(0.0)
        _note_committed(run, result, work.settings.home)
        if run.cancel_requested_at is not None or (result is not None and result.state is State.CANCELLED):
            if run.state is not RunState.CANCELLING:
                move_run(session, run, RunState.CANCELLING, now=now, reason_code="user_cancelled")
            end_cancelled(session, run, now=now)
        elif run.pause_requested_at is not None and rules.is_interrupted(result):
            move_run(session, run, RunState.PAUSED, now=now, reason_code="user_paused")
            release_devices(session, run, now)
        elif rules.should_halve(result, run.device_batch_tokens):
            halved = rules.halve_batch(run.plan or {})
            move_run(
                session, run, RunState.RECOVERING, now=now, reason_code="out_of_memory", device_batch_tokens=halved
            )
            return again(_RETRY_S)
        elif rules.should_slow(result, run.rate_percent):
            percent = rules.SLOWED_PERCENT
            move_run(session, run, RunState.RECOVERING, now=now, reason_code=rules.NAN_LOSS, rate_percent=percent)
            return again(_RETRY_S)
        elif rules.should_retry(result, attempts=_count_platform_ends(session, run)):
            reason = result.reason_code if result is not None else why.code
            move_run(session, run, RunState.RECOVERING, now=now, reason_code=reason)
            return again(_RETRY_S)
        else:
            end_failed(
                session,
                run,
                reason_code=result.reason_code if result is not None else why.code,
                fault=rules.find_fault(result),
                message=rules.explain_end(
                    result, why=why, device_batch_tokens=run.device_batch_tokens, rate_percent=run.rate_percent
                ),
                now=now,
            )
        finish_job(session, claim, now=now)
    return DONE


def end_cancelled(session: Session, run: Run, *, now: datetime) -> None:
    """Close a run at the customer's wish: the metered part is billed, the rest is released."""
    move_run(session, run, RunState.CANCELLED, now=now, reason_code="user_cancelled", fault=Fault.USER)
    _refund(session, run, OrderFault.CANCEL, now)


def end_failed(session: Session, run: Run, *, reason_code: str, fault: Fault, message: str, now: datetime) -> None:
    """Close a run that will not be tried again; the fault decides what is billed."""
    move_run(session, run, RunState.FAILED, now=now, reason_code=reason_code, fault=fault, message=message)
    if run.order_id is not None:
        _refund(session, run, _ORDER_FAULTS[fault], now)


def fail_orphaned_runs(session: Session, *, now: datetime) -> int:
    """Fail runs whose job was given up and refund those that were ordered; returns how many."""
    ordered = Run.order_id.is_not(None) & Run.finished_at.is_(None) & ~has_open_job(TRAIN_KIND, Run.id)
    ordered &= ~has_open_job(GATE_KIND, Run.id)
    ordered &= Run.state != RunState.PAUSED
    planning = (Run.state == RunState.VALIDATING) & ~has_open_job(PLAN_KIND, Run.id)
    ordering = (Run.state == RunState.PLANNED) & Run.terms.is_not(None) & ~has_open_job(ORDER_KIND, Run.id)
    found = session.scalars(select(Run).where(ordered | planning | ordering).order_by(Run.id)).all()
    for run in found:
        reason, message = _ORDERING_FAILED if run.state is RunState.PLANNED else _WORK_FAILED
        end_failed(session, run, reason_code=reason, fault=Fault.PLATFORM, message=message, now=now)
    return len(found)


def _begin_gating(session: Session, run: Run, result: Result, now: datetime) -> None:
    """The work is done and its meter final; devices go back at once, the money is settled when the gate has decided."""
    move_run(
        session,
        run,
        RunState.GATING,
        now=now,
        metrics=dict(result.metrics),
        gate={"trained": str(result.state)},
        artifact_digest=result.artifact_digest,
        device_ms=result.billable_device_ms,
        trained_tokens=result.tokens,
    )
    release_devices(session, run, now)


def settle_run(session: Session, run: Run, now: datetime) -> None:
    """Bill what was delivered, release the rest of the hold and the devices; again changes nothing."""
    settle_order(session, _order_of(run), metered=_metered(session, run), now=now)
    release_devices(session, run, now)


def _refund(session: Session, run: Run, fault: OrderFault, now: datetime) -> None:
    refund_order(
        session, _order_of(run), fault=fault, reason_code=run.reason_code or "", metered=_metered(session, run), now=now
    )
    release_devices(session, run, now)


def release_devices(session: Session, run: Run, now: datetime) -> None:
    """Give a run's devices back with the time that its attempts took; again changes nothing."""
    if run.rental_id is not None:
        device_ms = _sum_elapsed(session, run) - sum_earlier_rentals(session, run)
        release(session, run.rental_id, device_ms=max(0, device_ms), now=now)


def _sum_elapsed(session: Session, run: Run) -> int:
    statement = select(func.coalesce(func.sum(RunAttempt.elapsed_device_ms), 0)).where(
        RunAttempt.organisation_id == run.organisation_id, RunAttempt.run_id == run.id
    )
    return int(session.scalar(statement) or 0)  # PostgreSQL sums BIGINT as NUMERIC


def _order_of(run: Run) -> str:
    if run.order_id is None:
        raise ValueError(f"run {run.id} in state {run.state} has no order")
    return run.order_id


def _metered(session: Session, run: Run) -> dict[str, int]:
    return {
        "device_ms": run.device_ms or 0,
        "trained_tokens": run.trained_tokens or 0,
        "elapsed_device_ms": _sum_elapsed(session, run),
    }


def _note_committed(run: Run, result: Result | None, home: Path) -> None:
    """What counts of an unfinished run is its last commit: an attempt that ended before its own leaves the former."""
    commit = find_commit(home, run.id, run.attempt)
    counted = [(commit.tokens, commit.device_ms)] if commit is not None else []
    if result is not None:
        counted.append((result.tokens, result.billable_device_ms))
    run.trained_tokens, run.device_ms = max(counted, default=(0, 0))


def _close_attempt(
    session: Session,
    run: Run,
    result: Result | None,
    *,
    exit_code: int | None,
    why: rules.NoResult,
    now: datetime,
) -> None:
    attempt = session.scalar(
        select(RunAttempt).where(RunAttempt.run_id == run.id, RunAttempt.attempt == run.attempt).with_for_update()
    )
    if attempt is None or attempt.state is not AttemptState.ACTIVE:
        return
    attempt.state = AttemptState.ENDED if result is not None else AttemptState.LOST
    attempt.ended_at, attempt.exit_code = now, exit_code
    attempt.reason_code = result.reason_code if result is not None else why.code
    lived_ms = (now - attempt.created_at) // timedelta(milliseconds=1)
    attempt.elapsed_device_ms = result.elapsed_device_ms if result is not None else max(0, lived_ms)


def _count_platform_ends(session: Session, run: Run) -> int:
    others = RunAttempt.reason_code.not_in(_NO_LOSS)
    return session.scalar(select(func.count()).where(RunAttempt.run_id == run.id, others)) or 0
