"""What a handler works with and how it answers: one short pass over a claimed job, called until it is done.

Handlers keep no state between passes: rows, process records and files say everything, so any worker can go on.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from hub.clock import Clock
from hub.database import Sessions
from hub.jobs.service import Claim
from hub.jobs.watching import Watches
from hub.settings import Settings
from registry.store import FolderStore
from serving.launch import Launch

_LOOK_S = 0.3
T = TypeVar("T")


class Outcome(StrEnum):
    """How a pass ended: call again, closed by the handler itself, hand back, or failed."""

    AGAIN = "again"
    DONE = "done"
    LATER = "later"
    FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """`after_s`: pause before the next pass (again), before any worker claims it (later) or retries it (failed)."""

    outcome: Outcome
    after_s: float | None = None
    error: str = ""


DONE = Verdict(Outcome.DONE)


def again(after_s: float) -> Verdict:
    """Keep the lock and call the handler once more."""
    return Verdict(Outcome.AGAIN, after_s)


def later(after_s: float) -> Verdict:
    """Hand the job back; it is due after a while."""
    return Verdict(Outcome.LATER, after_s)


def failed(error: str, *, retry_after_s: float | None = None) -> Verdict:
    """Count a failure; without a retry it is the last."""
    return Verdict(Outcome.FAILED, retry_after_s, error)


@dataclass(frozen=True)
class Work:
    """Everything of the composition that handlers use. `environment` is what child processes may inherit from."""

    settings: Settings
    sessions: Sessions
    store: FolderStore
    launch: Launch
    clock: Clock
    environment: Mapping[str, str]
    device: str
    """`cpu` or `cuda`: what this machine trains on."""
    cpu_threads: int
    slow: Executor
    """Runs what blocks on the network, beside the loop."""
    pending: dict[str, "Future[Any]"] = field(default_factory=dict)
    """Slow calls under way by job id; lost with the worker and then simply made again."""
    watches: Watches = field(default_factory=Watches)
    """What this process saw of the trainers; lost with the worker, which only lengthens its patience."""


Handler = Callable[[Work, Claim], Verdict]


def run_beside(
    work: Work,
    claim: Claim,
    *,
    begin: Callable[[], Callable[[], T] | Verdict],
    take: Callable[[T], Verdict],
    errors: Mapping[type[Exception], Callable[[Any], Verdict]],
) -> Verdict:
    """One pass over a job whose work blocks: start it beside the loop, look again, take its result.

    `begin` returns the call to make, or the verdict where it cannot be made yet. `errors` names what the call may raise
    and what each means; anything else goes up to the loop. A call that a worker took with it is simply made again.
    """
    pending = work.pending.get(claim.job_id)
    if pending is None:
        call = begin()
        if isinstance(call, Verdict):
            return call
        work.pending[claim.job_id] = work.slow.submit(call)
        return again(_LOOK_S)
    if not pending.done():
        return again(_LOOK_S)
    del work.pending[claim.job_id]
    try:
        result: T = pending.result()
    except tuple(errors) as error:
        return next(answer(error) for kind, answer in errors.items() if isinstance(error, kind))
    return take(result)


def try_again(what: str, *, after_s: float) -> Callable[[Exception], Verdict]:
    """Return what `run_beside` makes of an error that may pass: another try later, told as `what` and the error."""
    return lambda error: failed(f"{what}: {error}", retry_after_s=after_s)
