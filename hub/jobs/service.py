"""Enqueue, claim, renew, finish and fail jobs; a result is applied only where the lock token still matches.

It knows kinds, locks and counts. What a job does, and when it may be tried again, is left to the handlers.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, func, or_, select, update
from sqlalchemy.orm import Session

from hub.errors import ConflictError
from hub.ids import new_id
from hub.jobs.tables import Job, JobState, LockRow
from hub.jobs.turns import Waiting, order_turns

DEFAULT_MAX_FAILURES = 5


class LockLostError(ConflictError):
    """Another worker holds this job now; whatever was about to be applied must be dropped."""

    code = "job_lock_lost"


@dataclass(frozen=True)
class Claim:
    """A locked job as its worker holds it; `token` proves the lock."""

    job_id: str
    token: str
    kind: str
    subject: str
    organisation_id: str
    payload: Any
    attempts: int
    failures: int


def enqueue_job(
    session: Session,
    *,
    kind: str,
    subject: str,
    organisation_id: str,
    now: datetime,
    payload: Any = None,
    run_after: datetime | None = None,
    max_failures: int = DEFAULT_MAX_FAILURES,
) -> Job:
    """Add work; the open job of the same kind and subject is returned instead when there is one."""
    found = find_open_job(session, kind=kind, subject=subject)
    if found is not None:
        return found
    job = Job(
        id=new_id("job"),
        organisation_id=organisation_id,
        kind=kind,
        subject=subject,
        state=JobState.WAITING,
        payload=payload,
        attempts=0,
        failures=0,
        max_failures=max_failures,
        run_after=run_after or now,
        created_at=now,
    )
    session.add(job)
    session.flush()
    return job


def find_open_job(session: Session, *, kind: str, subject: str) -> Job | None:
    """Return the waiting or locked job of a kind and subject."""
    return session.scalar(select(Job).where(Job.kind == kind, Job.subject == subject, _is_open()))


def has_open_job(kind: str, subject: Any) -> ColumnElement[bool]:
    """Return the condition that a row's job of this kind is open; `subject` is the row's id column."""
    return select(Job.id).where(Job.kind == kind, Job.subject == subject, _is_open()).exists()


def list_open_subjects(session: Session, kind: str, *, prefix: str) -> set[str]:
    """Return the subjects of open jobs of a kind that begin with a text."""
    query = select(Job.subject).where(Job.kind == kind, Job.subject.startswith(prefix, autoescape=True), _is_open())
    return set(session.scalars(query))


def claim_job(session: Session, *, kinds: Collection[str], worker: str, now: datetime, lock_s: float) -> Claim | None:
    """Lock a due job of these kinds, or one whose lock ran out; organisations take turns. None when there is none."""
    job = _lock_first(session, list_turns(session, kinds, now=now), now)
    if job is None:
        return None
    job.state = JobState.LOCKED
    job.lock_token = secrets.token_hex(16)
    job.locked_by = worker
    job.locked_until = now + timedelta(seconds=lock_s)
    job.attempts += 1
    session.flush()
    return Claim(
        job_id=job.id,
        token=job.lock_token,
        kind=job.kind,
        subject=job.subject,
        organisation_id=job.organisation_id,
        payload=job.payload,
        attempts=job.attempts,
        failures=job.failures,
    )


def list_turns(session: Session, kinds: Collection[str], *, now: datetime, later_too: bool = False) -> list[str]:
    """Return the ids of the due jobs of these kinds in the order in which workers will take them.

    `later_too` adds those handed back for a while, which keep their turn: they count from when they were queued.
    """
    ready = or_(_is_due(now), Job.state == JobState.WAITING) if later_too else _is_due(now)
    rows = session.execute(select(Job.id, Job.organisation_id, Job.created_at).where(Job.kind.in_(kinds), ready)).all()
    organisations = {row.organisation_id for row in rows}
    if len(organisations) < 2:
        return [row.id for row in sorted(rows, key=lambda row: (row.created_at, row.id))]
    held = Job.kind.in_(kinds) & Job.organisation_id.in_(organisations)
    running = session.execute(
        select(Job.organisation_id, func.count())
        .where(held, Job.state == JobState.LOCKED, Job.locked_until > now)
        .group_by(Job.organisation_id)
    )
    ended = session.execute(
        select(Job.organisation_id, func.max(Job.finished_at)).where(held).group_by(Job.organisation_id)
    )
    waiting = (Waiting(row.id, row.organisation_id, row.created_at) for row in rows)
    turns = order_turns(
        waiting,
        running={row[0]: row[1] for row in running},
        last_turn_at={row[0]: row[1] for row in ended if row[1] is not None},
    )
    return [item.job_id for item in turns]


def renew_lock(session: Session, claim: Claim, *, now: datetime, lock_s: float) -> bool:
    """Keep the lock for another while; False when it is somebody else's by now."""
    return _apply(session, claim, locked_until=now + timedelta(seconds=lock_s))


def require_lock(session: Session, claim: Claim) -> Job:
    """Return the job row, locked, for a transaction that applies its result.

    Raises:
        LockLostError: the token no longer matches.
    """
    job = session.scalar(select(Job).where(Job.id == claim.job_id, Job.lock_token == claim.token).with_for_update())
    if job is None:
        raise LockLostError(
            f"Job {claim.job_id} is locked by another worker now; this result is dropped.",
            f"任务 {claim.job_id} 已由其他进程接管，本次结果作废。",
        )
    return job


def finish_job(session: Session, claim: Claim, *, now: datetime) -> None:
    """Close the job as done, in the transaction that applies its result. Raises: LockLostError."""
    _unlock(require_lock(session, claim), JobState.DONE).finished_at = now


def release_job(session: Session, claim: Claim, *, run_after: datetime) -> bool:
    """Hand the job back unharmed (worker stopping, or a wait for something else); False when the lock was lost."""
    return _apply(
        session,
        claim,
        state=JobState.WAITING,
        lock_token=None,
        locked_by=None,
        locked_until=None,
        run_after=run_after,
    )


def fail_job(session: Session, claim: Claim, *, error: str, now: datetime, retry_after_s: float | None) -> JobState:
    """Count a failure: back to waiting after `retry_after_s`, or failed for good (None, or failures used up).

    Raises:
        LockLostError: the token no longer matches.
    """
    job = require_lock(session, claim)
    job.failures += 1
    job.last_error = error[:2000]
    if retry_after_s is None or job.failures >= job.max_failures:
        _unlock(job, JobState.FAILED).finished_at = now
    else:
        _unlock(job, JobState.WAITING).run_after = now + timedelta(seconds=retry_after_s)
    return job.state


def cancel_waiting_job(session: Session, *, kind: str, subject: str, now: datetime) -> bool:
    """Cancel the job if no worker holds it; False when there is none or it is locked."""
    job = find_open_job(session, kind=kind, subject=subject)
    if job is None or job.state is not JobState.WAITING:
        return False
    _unlock(job, JobState.CANCELLED).finished_at = now
    return True


def hold_role(session: Session, name: str, *, holder: str, now: datetime, hold_s: float) -> bool:
    """Take or keep a role that one process at a time may have; False while another holds it."""
    row = session.get(LockRow, name, with_for_update=True)
    if row is not None and row.holder != holder and row.locked_until > now:
        return False
    if row is None:
        row = LockRow(name=name, holder=holder, locked_until=now)
        session.add(row)
    row.holder = holder
    row.locked_until = now + timedelta(seconds=hold_s)
    return True


def give_up_role(session: Session, name: str, *, holder: str) -> None:
    """Let go of a role so that the next process need not wait for its end."""
    row = session.get(LockRow, name, with_for_update=True)
    if row is not None and row.holder == holder:
        session.delete(row)


def _lock_first(session: Session, job_ids: Sequence[str], now: datetime) -> Job | None:
    """Return the first of these that no other worker takes at the same moment, locked."""
    for job_id in job_ids:
        job = session.scalar(select(Job).where(Job.id == job_id, _is_due(now)).with_for_update(skip_locked=True))
        if job is not None:
            return job
    return None


def _is_due(now: datetime) -> ColumnElement[bool]:
    due = and_(Job.state == JobState.WAITING, Job.run_after <= now)
    abandoned = and_(Job.state == JobState.LOCKED, Job.locked_until <= now)
    return or_(due, abandoned)


def _is_open() -> Any:
    return Job.state.in_((JobState.WAITING, JobState.LOCKED))


def _apply(session: Session, claim: Claim, **values: Any) -> bool:
    statement = update(Job).where(Job.id == claim.job_id, Job.lock_token == claim.token).values(**values)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1


def _unlock(job: Job, state: JobState) -> Job:
    job.state = state
    job.lock_token = None
    job.locked_by = None
    job.locked_until = None
    return job
