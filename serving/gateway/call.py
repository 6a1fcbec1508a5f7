"""One admitted request on its way: its reservation, attempt, usage so far and how it can be interrupted.

Choosing replicas is left to `dispatch`, passing bytes to `relay`.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from serving.contract import EndReason, RouteReplica, SnapshotKey, UsageRecord, UsageStatus
from serving.gateway.engine_client import EngineAnswer
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange
from serving.gateway.journal_entries import Progressed, Reserved
from serving.gateway.plan import Plan
from serving.gateway.sse import Usage
from serving.gateway.traces import CallTrace
from serving.gateway.transcript import Transcript
from serving.gateway.wallet import Hold


class CallInterruptedError(Exception):
    """The call was stopped from outside for `reason`."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class _Interruptible:
    """Turns the cancellation of a call's task into what it was stopped for; a generator would cost each call more."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs inside a task")
        self._call.task = self._task = task
        self._before = task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.task = None
        reason = self._call.stopped_for
        if reason is None or not isinstance(error, asyncio.CancelledError):
            return
        if self._task.uncancel() <= self._before:
            raise CallInterruptedError(reason) from error


class Call:
    """The mutable record of one request; `usage` is None until the engine has said anything."""

    def __init__(self, exchange: Exchange, *, key: SnapshotKey, plan: Plan, hold: Hold, started_at: int) -> None:
        self.exchange = exchange
        self.request_id = exchange.request_id
        self.key = key
        self.plan = plan
        self.hold = hold
        self.started_at = started_at
        self.attempt = 0
        self.path = plan.surface.path
        self.body = plan.upstream_body
        self.transcript = Transcript(plan.surface) if plan.continuable else None
        self.avoid: set[str] = set()
        self.replica: RouteReplica | None = None
        self.usage: Usage | None = None
        self.used_tokens = 0
        """Of all attempts that ended."""
        self.settled = False
        self.owes_unknown = False
        """The client has got text whose tokens the engine tells only at the end."""
        self.verdict: GatewayError | None = None
        self.answer: EngineAnswer | None = None
        self.asked_at_s = 0.0
        self.expected_in_s: float | None = None
        self.progress_at_s = 0.0
        self.sent_at_s = 0.0
        self.began_at_s = 0.0
        self.first_at_s = 0.0
        self.end_reason: EndReason | None = None
        self.trace: CallTrace | None = None
        self.stopped_for: EndReason | None = None
        self.task: asyncio.Task[object] | None = None
        """The task to cancel while the call is `interruptible`."""

    def interruptible(self) -> _Interruptible:
        """Let `interrupt` stop the body of this block. Raises: CallInterruptedError."""
        return _Interruptible(self)

    def interrupt(self, reason: EndReason, verdict: GatewayError | None = None) -> None:
        """Stop the call at its next wait and answer `verdict`; the first reason stays."""
        if self.task is not None and self.stopped_for is None:
            self.verdict = verdict
            self.stopped_for = reason
            self.task.cancel()

    def client_left(self) -> None:
        """Stop a call that nobody waits for; text that was delivered is billed, so an engine may get to its count."""
        if not self.owes_unknown:
            self.interrupt(EndReason.CLIENT_GONE)
        elif self.answer is not None:
            self.answer.flow(True)  # a client that was slow no longer holds the count up

    def begin_attempt(self, replica: RouteReplica) -> Reserved:
        """Note that the request goes to `replica` now and return the journal entry that says so."""
        self.attempt += 1
        self.replica = replica
        return Reserved(
            request_id=self.request_id,
            attempt=self.attempt,
            allowance_id=self.hold.slice.allowance_id,
            organisation_id=self.key.organisation_id,
            key_id=self.key.key_id,
            cost_centre=self.key.cost_centre,
            version_id=self.plan.target.version_id,
            digest=self.plan.target.digest,
            price_version_id=self.plan.target.model.price_version_id,
            replica_id=replica.id,
            replica_epoch=replica.epoch,
            started_at=self.started_at,
        )

    def may_continue(self) -> bool:
        """Return whether another replica could go on where this one was lost; only once, or one call kills many."""
        known = self.transcript is not None and self.transcript.can_continue
        return known and self.usage is not None and not self.avoid

    def progress(self) -> Progressed:
        """Return the journal entry of the usage so far."""
        usage = self.usage or Usage()
        return Progressed(
            self.request_id, self.attempt, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        )

    def describe(self, reason: EndReason, took_s: float) -> dict[str, str | int | None]:
        """Return what a log may say of the call at hand: ids, counts and times, nothing that was said."""
        usage = self.usage or Usage()
        return {
            "request_id": self.request_id,
            "attempt": self.attempt,
            "organisation_id": self.key.organisation_id,
            "key_id": self.key.key_id,
            "surface": self.plan.surface.name,
            "version_id": self.plan.target.version_id,
            "adapter": self.plan.target.engine_name,
            "replica_id": None if self.replica is None else self.replica.id,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "end_reason": reason.value,
            "first_token_ms": int((self.first_at_s - self.began_at_s) * 1000) if self.first_at_s else None,
            "took_ms": int(took_s * 1000),
        }

    def usage_record(
        self, replica: RouteReplica, *, ended_at: int, reason: EndReason, complete: bool, disputed: bool
    ) -> UsageRecord:
        """Return the record of the attempt that was sent to `replica`."""
        usage = self.usage or Usage()
        partial = UsageStatus.PARTIAL if usage.completion_tokens else UsageStatus.FAILED
        return UsageRecord(
            request_id=self.request_id,
            attempt=self.attempt,
            allowance_id=self.hold.slice.allowance_id,
            organisation_id=self.key.organisation_id,
            key_id=self.key.key_id,
            cost_centre=self.key.cost_centre,
            version_id=self.plan.target.version_id,
            digest=self.plan.target.digest,
            price_version_id=self.plan.target.model.price_version_id,
            replica_id=replica.id,
            replica_epoch=replica.epoch,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            started_at=self.started_at,
            ended_at=max(ended_at, self.started_at),
            end_reason=reason,
            status=UsageStatus.COMPLETE if complete else partial,
            disputed=disputed,
        )
