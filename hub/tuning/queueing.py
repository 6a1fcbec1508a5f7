"""Puts ordered runs into the queue and tells where one stands and when it may start, never of whom the others are.

It leaves the order itself to `hub.jobs.turns`.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.jobs.service import enqueue_job, list_turns
from hub.jobs.tables import Job
from hub.tuning.kinds import TRAIN_KIND
from hub.tuning.progress import locate_attempt, read_tail
from hub.tuning.rules import QUOTE_HEADROOM_DEN, QUOTE_HEADROOM_NUM
from hub.tuning.states import PARKED, RunState
from hub.tuning.tables import Run

MAX_TRAIN_FAILURES = 20
_RUNNING = (RunState.PROVISIONING, RunState.PREPARING, RunState.RUNNING, RunState.EVALUATING)


@dataclass(frozen=True)
class Place:
    """`position` 1 is next; `eta_s` until the start as the runs ahead are expected to take, one at a time."""

    position: int
    ahead: int
    eta_s: int


def queue_training(session: Session, run: Run, *, now: datetime) -> None:
    """Put a run's training into the queue, the first time or after a pause."""
    enqueue_job(
        session,
        kind=TRAIN_KIND,
        subject=run.id,
        organisation_id=run.organisation_id,
        now=now,
        max_failures=MAX_TRAIN_FAILURES,
    )


def find_place(session: Session, run: Run, home: Path, now: datetime) -> Place | None:
    """Return the place of a waiting run; None when it does not wait, or a worker is placing it at this moment."""
    if run.state not in PARKED:
        return None
    turns = list_turns(session, [TRAIN_KIND], now=now, later_too=True)
    subjects = {row.id: row.subject for row in session.execute(select(Job.id, Job.subject).where(Job.id.in_(turns)))}
    order = [subjects[job_id] for job_id in turns]
    if run.id not in order:
        return None
    index = order.index(run.id)
    ahead = session.scalars(select(Run).where(Run.id.in_(order[:index]))).all()
    running = session.scalars(select(Run).where(Run.state.in_(_RUNNING))).all()
    left_ms = sum(_expect_ms(item) for item in ahead) + sum(_expect_left_ms(item, home) for item in running)
    return Place(index + 1, len(ahead) + len(running), -(-left_ms // 1000))


def _expect_ms(run: Run) -> int:
    """What was quoted, without its headroom."""
    return (run.quoted_device_ms or 0) * QUOTE_HEADROOM_DEN // QUOTE_HEADROOM_NUM


def _expect_left_ms(run: Run, home: Path) -> int:
    lines = read_tail(locate_attempt(home, run.id, run.attempt))
    used_ms = lines[-1].device_ms if lines else 0
    return max(0, _expect_ms(run) - used_ms)
