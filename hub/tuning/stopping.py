"""Cancel, pause, resume: what a person wants of a run, taken at once where no trainer runs, else at its next step.

It leaves telling the trainer to `hub.tuning.training` and money to `hub.tuning.endings`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import cancel_waiting_job
from hub.tuning.endings import end_cancelled, release_devices
from hub.tuning.kinds import ORDER_KIND, PLAN_KIND, TRAIN_KIND
from hub.tuning.moves import RunStateError, move_run
from hub.tuning.queueing import queue_training
from hub.tuning.service import find_run
from hub.tuning.states import PARKED, TERMINAL, TRAINED, UNORDERED, RunState
from hub.tuning.tables import Run

PAUSE_DAYS = 7
"""A paused run holds money; after a week it is cancelled and the rest goes back (our default)."""
PAUSABLE = PARKED | {RunState.PROVISIONING, RunState.PREPARING, RunState.RUNNING, RunState.EVALUATING}


def cancel_run(session: Session, actor: Actor, run_id: str, *, now: datetime) -> Run:
    """Stop a run: at once where no trainer runs, else after its current step; the metered part is billed.

    Again, on a finished run, or where the training is done and only the gate is left, nothing changes.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.state in TERMINAL | TRAINED or run.cancel_requested_at is not None:
        return run
    run.cancel_requested_at = now
    if run.state in UNORDERED:
        for kind in (PLAN_KIND, ORDER_KIND):
            cancel_waiting_job(session, kind=kind, subject=run.id, now=now)
        move_run(session, run, RunState.CANCELLED, now=now, actor_id=actor.user_id, reason_code="user_cancelled")
        return run
    _record(session, "run.cancel_requested", run, actor.user_id, now)
    if run.state is RunState.PAUSED or _take_from_queue(session, run, now):
        end_cancelled(session, run, now=now)
    return run


def pause_run(session: Session, actor: Actor, run_id: str, *, now: datetime) -> Run:
    """Stop a run after its current step, keep its checkpoint and free its devices; the money stays held.

    On a paused run, or one that pauses already, nothing changes.

    Raises:
        RunStateError: not ordered yet, being cancelled, or past training.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.state is RunState.PAUSED or run.pause_requested_at is not None:
        return run
    if run.state not in PAUSABLE or run.cancel_requested_at is not None:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; only a queued or training run can be paused. Wait, or cancel it.",
            f"任务 {run.id} 状态为“{run.state}”，只有排队或训练中的任务可以暂停。请等待或取消。",
            state=str(run.state),
        )
    run.pause_requested_at = now
    _record(session, "run.pause_requested", run, actor.user_id, now)
    if _take_from_queue(session, run, now):
        move_run(session, run, RunState.PAUSED, now=now, actor_id=actor.user_id, reason_code="user_paused")
        release_devices(session, run, now)
    return run


def resume_run(session: Session, actor: Actor, run_id: str, *, now: datetime) -> Run:
    """Queue a paused run again; it goes on from its checkpoint at the terms of its order.

    On a run that is queued or runs, nothing changes.

    Raises:
        RunStateError: not ordered yet, still on its way to the pause, or over.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.state in PAUSABLE and run.pause_requested_at is None:
        return run
    if run.state is not RunState.PAUSED:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; only a paused run can be resumed. Look at it again in a moment.",
            f"任务 {run.id} 状态为“{run.state}”，只有已暂停的任务可以继续。请稍后刷新。",
            state=str(run.state),
        )
    move_run(session, run, RunState.QUEUED, now=now, actor_id=actor.user_id, pause_requested_at=None)
    queue_training(session, run, now=now)
    return run


def end_long_pauses(session: Session, *, now: datetime) -> int:
    """Cancel runs that are paused for longer than PAUSE_DAYS; returns how many."""
    old = Run.pause_requested_at <= now - timedelta(days=PAUSE_DAYS)
    found = session.scalars(select(Run).where(Run.state == RunState.PAUSED, old).order_by(Run.id)).all()
    for run in found:
        run.cancel_requested_at = now
        _record(session, "run.cancel_requested", run, SYSTEM, now)
        end_cancelled(session, run, now=now)
    return len(found)


def _take_from_queue(session: Session, run: Run, now: datetime) -> bool:
    """Return whether the run waited for a worker and does no more; one that a worker holds is told by its handler."""
    return run.state in PARKED and cancel_waiting_job(session, kind=TRAIN_KIND, subject=run.id, now=now)


def _record(session: Session, topic: str, run: Run, actor_id: str, now: datetime) -> None:
    record_event(session, topic, run.id, organisation_id=run.organisation_id, actor_id=actor_id, now=now)
