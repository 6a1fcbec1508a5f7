"""Moves a run along with what its trainer writes, notes the first step, meters the rental and keeps its holds.

It leaves starting and ending to `hub.tuning.training`.
"""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import Event, Progress
from hub.clock import from_us
from hub.compute.service import meter_rental
from hub.compute.tables import Rental
from hub.jobs.service import Claim, require_lock
from hub.jobs.work import Work
from hub.orders.leases import keep_alive
from hub.tuning.moves import move_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run

_METER_EVERY_MS = 3000
_SEQ_PER_ATTEMPT = 10_000_000
_BEFORE = {
    RunState.RUNNING: (RunState.PREPARING,),
    RunState.EVALUATING: (RunState.PREPARING, RunState.RUNNING),
}


def note_progress(work: Work, claim: Claim, run: Run, lines: list[Progress]) -> None:
    """Apply the newest lines of an attempt; nothing is written while nothing changed. Raises: LockLostError."""
    if not lines:
        return
    target = read_stage(lines)
    moves = target is not None and run.state in _BEFORE[target]
    first_step_at = run.first_step_at or find_first_step(lines)
    if not moves and first_step_at == run.first_step_at and not _is_metering_due(work, run, lines[-1]):
        return
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        fresh = session.get_one(Run, run.id, with_for_update=True)
        fresh.first_step_at = fresh.first_step_at or first_step_at
        if target is not None and fresh.state in _BEFORE[target]:
            move_run(session, fresh, target, now=now)
        if fresh.rental_id is not None:
            seq = lines[-1].attempt * _SEQ_PER_ATTEMPT + lines[-1].seq
            device_ms = max(0, lines[-1].device_ms - sum_earlier_rentals(session, fresh))
            meter_rental(session, fresh.rental_id, device_ms=device_ms, seq=seq)
        if fresh.order_id is not None:
            keep_alive(session, fresh.order_id, now=now)


def sum_earlier_rentals(session: Session, run: Run) -> int:
    """Return the device time in ms of the rentals that ended with a pause of the run, before its current one."""
    query = select(func.coalesce(func.sum(Rental.device_ms), 0)).where(
        Rental.organisation_id == run.organisation_id, Rental.run_id == run.id, Rental.id != run.rental_id
    )
    return int(session.scalar(query) or 0)


def read_stage(lines: list[Progress]) -> RunState | None:
    """Return the state that the trainer's lines speak of, None while it prepares."""
    if any(str(line.metrics.get("stage", "")).startswith("evaluating") for line in lines):
        return RunState.EVALUATING
    return RunState.RUNNING if any(line.type is Event.STEP for line in lines) else None


def find_first_step(lines: list[Progress]) -> datetime | None:
    """Return when the first step among the lines was written."""
    return next((from_us(line.at) for line in lines if line.type is Event.STEP), None)


def _is_metering_due(work: Work, run: Run, newest: Progress) -> bool:
    if run.rental_id is None:
        return False
    with work.sessions.read() as session:
        rental = session.get_one(Rental, run.rental_id)
    return newest.device_ms - rental.device_ms >= _METER_EVERY_MS
