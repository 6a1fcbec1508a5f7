"""The loop of one worker: claims jobs within its limits, calls their handlers pass by pass, keeps the locks alive.

It leaves which kinds there are, and chores beside the jobs, to the composition in `hub.worker`.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.jobs.service import Claim, LockLostError, claim_job, fail_job, release_job, renew_lock
from hub.jobs.tables import Job, JobState
from hub.jobs.work import Handler, Outcome, Verdict, Work

LOCK_S = 20.0
_RENEW_S = 5.0
_MAX_BACKOFF_S = 60.0
log = logging.getLogger("hub.worker")


@dataclass(frozen=True)
class Kind:
    """A kind of job: its handler and the lane whose limit it shares."""

    handler: Handler
    lane: str


@dataclass
class _Held:
    claim: Claim
    due_s: float
    renewed_s: float


@dataclass
class JobLoop:
    """One worker's jobs. `lanes` is how many jobs of a lane may be held at once."""

    work: Work
    name: str
    kinds: Mapping[str, Kind]
    lanes: Mapping[str, int]
    _held: dict[str, _Held] = field(default_factory=dict)

    def tick(self) -> None:
        """Claim what fits, give every due job one pass, renew the locks."""
        self._claim_all()
        for held in list(self._held.values()):
            if held.due_s <= time.monotonic():
                self._pass(held)
        self._renew()

    def hand_back(self) -> int:
        """Release all held jobs, so that the next worker goes on at once; returns how many."""
        held, self._held = self._held, {}
        for item in held.values():
            with self.work.sessions.write() as session:
                release_job(session, item.claim, run_after=self.work.clock())
        return len(held)

    def _claim_all(self) -> None:
        while True:
            kinds = self._list_open_kinds()
            if not kinds or not self._is_any_due(kinds):
                return
            with self.work.sessions.write() as session:
                claim = claim_job(session, kinds=kinds, worker=self.name, now=self.work.clock(), lock_s=LOCK_S)
            if claim is None:
                return
            now_s = time.monotonic()
            self._held[claim.job_id] = _Held(claim, due_s=now_s, renewed_s=now_s)
            log.info("job claimed", extra={"fields": _describe(claim)})

    def _list_open_kinds(self) -> list[str]:
        used = [self.kinds[held.claim.kind].lane for held in self._held.values()]
        return [name for name, kind in self.kinds.items() if used.count(kind.lane) < self.lanes[kind.lane]]

    def _is_any_due(self, kinds: list[str]) -> bool:
        """Look without taking the writers' lock, which an idle worker would else take several times a second."""
        now = self.work.clock()
        waiting = (Job.state == JobState.WAITING) & (Job.run_after <= now)
        abandoned = (Job.state == JobState.LOCKED) & (Job.locked_until <= now)
        with self.work.sessions.read() as session:
            return (
                session.scalar(select(Job.id).where(Job.kind.in_(kinds), or_(waiting, abandoned)).limit(1)) is not None
            )

    def _pass(self, held: _Held) -> None:
        claim = held.claim
        try:
            verdict = self.kinds[claim.kind].handler(self.work, claim)
            self._obey(held, verdict)
        except LockLostError:
            self._held.pop(claim.job_id)
            log.warning("job lost to another worker", extra={"fields": _describe(claim)})
        except Exception as error:
            self._held.pop(claim.job_id)
            log.exception("job failed", extra={"fields": _describe(claim)})
            self._fail(claim, f"{type(error).__name__}: {error}", min(_MAX_BACKOFF_S, 2.0 ** (claim.failures + 1)))

    def _obey(self, held: _Held, verdict: Verdict) -> None:
        claim = held.claim
        if verdict.outcome is Outcome.AGAIN:
            held.due_s = time.monotonic() + (verdict.after_s or 0.0)
            return
        self._held.pop(claim.job_id)
        if verdict.outcome is Outcome.LATER:
            with self.work.sessions.write() as session:
                now = self.work.clock()
                release_job(session, claim, run_after=now + timedelta(seconds=verdict.after_s or 0.0))
        elif verdict.outcome is Outcome.FAILED:
            log.warning("job failed", extra={"fields": {**_describe(claim), "reason": verdict.error[:300]}})
            self._fail(claim, verdict.error, verdict.after_s)
        else:
            log.info("job done", extra={"fields": _describe(claim)})

    def _fail(self, claim: Claim, error: str, retry_after_s: float | None) -> None:
        try:
            with self.work.sessions.write() as session:
                fail_job(session, claim, error=error, now=self.work.clock(), retry_after_s=retry_after_s)
        except LockLostError:
            log.warning("job lost to another worker", extra={"fields": _describe(claim)})

    def _renew(self) -> None:
        due = [held for held in self._held.values() if time.monotonic() - held.renewed_s >= _RENEW_S]
        if not due:
            return
        with self.work.sessions.write() as session:
            lost = [held for held in due if not self._renew_one(session, held)]
        for held in lost:
            self._held.pop(held.claim.job_id)
            log.warning("job lost to another worker", extra={"fields": _describe(held.claim)})

    def _renew_one(self, session: Session, held: _Held) -> bool:
        held.renewed_s = time.monotonic()
        return renew_lock(session, held.claim, now=self.work.clock(), lock_s=LOCK_S)


def _describe(claim: Claim) -> dict[str, object]:
    return {"job": claim.job_id, "kind": claim.kind, "subject": claim.subject, "attempts": claim.attempts}
