"""Gets a planned request to a replica: hold until one is ready, send, retry while no work can have been lost.

Which replica is `routing`'s choice; reading the answer is left to `relay`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import lru_cache
from urllib.parse import quote

from serving.contract import ModelTarget, RouteReplica, SnapshotModel
from serving.gateway.call import Call
from serving.gateway.clock import Clock
from serving.gateway.engine_client import EngineAnswer, EngineClient, EngineLostError, EngineUnreachableError
from serving.gateway.errors import ErrorType, GatewayError, Limit, unavailable
from serving.gateway.fair_share import KEEP_ALIVE_S, FairShare, Turn, hold_limit
from serving.gateway.journal_entries import Cancelled
from serving.gateway.journal_file import Journal
from serving.gateway.routing import Router
from serving.gateway.sse import Usage
from serving.gateway.surfaces import EMBEDDINGS, Dialect

MAX_REFUSALS = 3
_REFUSED_S = 2
UPSTREAM_FAILED = "upstream_failed"
NOT_READY = "replica_not_ready"
_DRAINING_TEXT = b"cannot schedule new futures"

KeepWaiting = Callable[[], Awaitable[None]]
Take = Callable[[EngineAnswer], Awaitable[None]]
_NOTHING = Usage()


class Dispatcher:
    """Sends calls to replicas over one connection pool."""

    def __init__(
        self,
        router: Router,
        journal: Journal,
        engines: EngineClient,
        *,
        fair_share: FairShare,
        clock: Clock,
        hold_s: float,
    ) -> None:
        self._router = router
        self._fair_share = fair_share
        self._journal = journal
        self._engines = engines
        self._clock = clock
        self._hold_s = hold_s

    def is_routed(self, model: SnapshotModel, target: ModelTarget) -> bool:
        """Whether any replica offers a version at the moment."""
        return self._router.offers(model.base_digest, target.digest)

    async def send(self, call: Call, keep_waiting: KeepWaiting, take: Take) -> None:
        """Send a call and let `take` have the engine's answer, status 200, once the reservation is durable.

        `keep_waiting` is called every 3 s without a replica or a turn on one. An adapter that an
        engine does not have is waited for: it may be on its way to another. Raises: GatewayError, EngineLostError.
        """
        give_up_at_s = self._clock.monotonic_s() + self._hold_s
        tried = set(call.avoid)
        refusals = 0
        while True:
            turn = await self._take_place(call, tried, keep_waiting, give_up_at_s=give_up_at_s)
            replica = turn.replica
            self._router.begin(replica, call.plan.target)
            try:
                answer, refusal = await self._ask(call, replica)
                if refusal is None and answer is not None:
                    await self._hand_over(call, answer, replica, take)
                    return
            finally:
                self._router.end(replica, call.plan.target)
                usage = call.usage or _NOTHING
                self._fair_share.leave(
                    turn, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
                )
            self._take_back(call, replica)
            tried.add(replica.id)
            if refusal is None:
                continue
            refusals += 1
            if refusals >= MAX_REFUSALS or not self._has_other(call, tried):
                raise refusal

    async def _take_place(self, call: Call, tried: set[str], keep_waiting: KeepWaiting, *, give_up_at_s: float) -> Turn:
        """Return a turn of the caller's firm on a replica on which the adapter has a slot."""
        target = call.plan.target
        while True:
            replica = self._router.pick(target, tried=tried, affinity=call.plan.affinity)
            turn = await self._fair_share.enter(
                call.key.organisation_id,
                target,
                replica or await self._wait_for_replica(call, tried, keep_waiting, give_up_at_s=give_up_at_s),
                tried=tried,
                give_up_at_s=give_up_at_s,
                keep_waiting=keep_waiting,
            )
            if turn is None:
                continue
            entered = False
            try:
                entered = await self._enter_slot(call, turn.replica, keep_waiting, give_up_at_s=give_up_at_s)
            finally:
                if not entered:
                    self._fair_share.leave(turn, prompt_tokens=0, completion_tokens=0)
            if entered:
                return turn

    async def _hand_over(self, call: Call, answer: EngineAnswer, replica: RouteReplica, take: Take) -> None:
        call.answer = answer
        try:
            await take(answer)
        except EngineLostError:
            self._router.suspect(replica, hard=True)
            raise
        finally:
            answer.close()

    async def _ask(self, call: Call, replica: RouteReplica) -> tuple[EngineAnswer | None, GatewayError | None]:
        """Return the answer, or the refusal of a replica that did no work, or neither.

        Neither stands for a replica that cannot be reached, or has not the adapter, which may be on its way elsewhere.
        """
        entry, answer, durable = call.begin_attempt(replica), None, None
        try:
            answer = await self._engines.post(
                replica.url,
                call.path,
                call.body,
                request_id=f"{call.request_id}-{call.attempt}",
                account=_account(entry.allowance_id, entry.key_id, entry.version_id),
                traceparent=None if call.trace is None else call.trace.ask(replica, call.attempt),
            )
            # On the wire first: the engine computes while the reservation is written, which costs nobody time.
            call.asked_at_s = self._clock.monotonic_s()
            self._journal.append(entry)
            durable = self._journal.synced()
            self._router.probing(replica)
            await answer.head()
            refusal = None if answer.status == 200 else await _judge(call, answer, self._engine_limit(call))
            is_moving = answer.status == 404 and _is_moving(call, await answer.read())
            if not durable.done():
                self._journal.hurry()
            await durable
        except EngineUnreachableError:
            self._router.suspect(replica, hard=True)
            return None, None
        except EngineLostError:
            self._router.suspect(replica, hard=True)
            raise
        except BaseException:
            if answer is not None:
                answer.close()
            raise
        finally:
            if durable is not None:
                durable.cancel()
        if refusal is None:
            self._router.answered(replica)
            return answer, None
        answer.close()
        self._router.suspect(replica)
        return None, None if is_moving else refusal

    def _take_back(self, call: Call, replica: RouteReplica) -> None:
        """Undo an attempt that the engine refused before doing any work."""
        self._journal.append(Cancelled(call.request_id, call.attempt))
        call.replica, call.asked_at_s = None, 0.0

    def _has_other(self, call: Call, tried: set[str]) -> bool:
        return self._router.pick(call.plan.target, tried=tried) is not None

    async def _wait_for_replica(
        self, call: Call, tried: set[str], keep_waiting: KeepWaiting, *, give_up_at_s: float
    ) -> RouteReplica:
        target, replica = call.plan.target, None
        with self._router.queued(target):
            self._router.wanted.set()
            while replica is None:
                left_s = give_up_at_s - self._clock.monotonic_s()
                if left_s <= 0:
                    raise self._no_replica(call, self._router.expected_in_s(target))
                await self._router.wait_for_change(min(KEEP_ALIVE_S, left_s))
                tried.clear()
                replica = self._router.pick(target, affinity=call.plan.affinity)
                if replica is None:
                    call.expected_in_s = self._router.expected_in_s(target)
                    await keep_waiting()
        return replica

    async def _enter_slot(
        self, call: Call, replica: RouteReplica, keep_waiting: KeepWaiting, *, give_up_at_s: float
    ) -> bool:
        """Return whether the adapter got a slot of the engine; False when the engine left the routes meanwhile."""
        target = call.plan.target
        if self._router.slots.try_enter(replica, target.digest):
            return True
        with self._router.queued(target):
            while True:
                left_s = give_up_at_s - self._clock.monotonic_s()
                if left_s <= 0:
                    text = f"the engines compute with other adapters than {call.plan.public_name}; retry in 5 s"
                    limit = hold_limit(self._hold_s, self._clock, 5)
                    raise unavailable("no_slot_in_time", text, retry_after_s=5, limit=limit)
                entered = await self._router.slots.enter(replica, target.digest, min(KEEP_ALIVE_S, left_s))
                if entered is not None:
                    return entered
                await keep_waiting()

    def _engine_limit(self, call: Call) -> Limit:
        """Return the limit of engines that take no more, as far as known: they do not tell it."""
        others = max(0, self._router.running_on(call.plan.target) - 1)
        whom, resets_at = f"engines of {call.plan.public_name}", self._clock.iso_in(_REFUSED_S)
        return Limit("engine_calls", None, whom, others, resets_at=resets_at)

    def _no_replica(self, call: Call, expected_in_s: float | None) -> GatewayError:
        retry_after_s, name = math.ceil(expected_in_s or 30), call.plan.public_name
        text = f"no replica of {name} became ready within {self._hold_s:.0f} s; retry in {retry_after_s} s"
        limit = hold_limit(self._hold_s, self._clock, retry_after_s)
        return unavailable("no_replica_ready", text, retry_after_s=retry_after_s, limit=limit)


@lru_cache(maxsize=4096)
def _account(*ids: str) -> str:
    """Return whom a call is for, as the engine's witness writes it down."""
    return " ".join(map(quote, ids))


async def _judge(call: Call, response: EngineAnswer, limit: Limit) -> GatewayError:
    """Return the error to answer if no other replica takes the request; `limit` is that of the engines.

    Raises: GatewayError when the request itself is at fault or the engine may have worked on it.
    """
    text = await response.read()
    name = call.plan.public_name
    if call.plan.surface is EMBEDDINGS and response.status in (400, 404, 405, 501):
        raise GatewayError(501, "not_implemented", f"{name} does not serve embeddings", param="model")
    if (
        call.plan.surface.dialect is not Dialect.OPENAI
        and response.status in (404, 405, 501)
        and not _names_model(text)
    ):
        text_501 = f"the engine of {name} does not serve {call.plan.surface.path}"
        raise GatewayError(501, "not_implemented", text_501, kind=ErrorType.SERVER)
    if response.status in (400, 413, 422):
        raise _client_error(call, text)
    if response.status in (429, 503):
        text_503 = f"the engines of {name} take no more calls; retry in {_REFUSED_S} s"
        return unavailable("replicas_busy", text_503, retry_after_s=_REFUSED_S, limit=limit)
    if response.status in (404, 502) or (response.status == 500 and _DRAINING_TEXT in text):
        text_503 = f"no replica of {name} is ready, one may be starting; retry in {_REFUSED_S} s"
        return unavailable(NOT_READY, text_503, retry_after_s=_REFUSED_S)
    raise upstream_failed(name)


def _is_moving(call: Call, text: bytes) -> bool:
    """Return whether the routes will tell where an adapter is that an engine did not have; a base goes nowhere."""
    target = call.plan.target
    return target.digest != target.model.base_digest and _names_model(text)


def _names_model(text: bytes) -> bool:
    """Return whether a 404 is about a model that is not loaded yet rather than about the path."""
    return b"model" in text and b"does not exist" in text


def upstream_failed(name: str) -> GatewayError:
    """Return the 502 for an engine that failed while it may have been working on the request."""
    text = f"the engine failed while answering for {name}; tokens already delivered are billed, others are not"
    return GatewayError(502, UPSTREAM_FAILED, text, kind=ErrorType.SERVER)


def _client_error(call: Call, text: bytes) -> GatewayError:
    context = call.plan.target.model.context_tokens
    if b"context length" in text or b"max_tokens" in text:
        message = f"prompt and max_tokens together exceed the context length of {context} tokens; shorten one of them"
        # The engine counted the tokens; what it says of them is not for callers.
        limit = Limit("context_tokens", context, f"model {call.plan.public_name}", None, left=None)
        param = call.plan.surface.prompt_field
        return GatewayError(400, "context_length_exceeded", message, param=param, limit=limit)
    message = f"the engine of {call.plan.public_name} does not accept these parameter values; check them"
    return GatewayError(400, "invalid_value", message)
