"""One inference request from bearer token to settled bill.

The steps live in their own files; this one is their order and the guarantee that every reservation ends exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial

from serving.contract import EndReason, Peppers, RouteReplica, SnapshotKey, cost_ufen
from serving.gateway.access import MODEL_NOT_DEPLOYED, MODEL_NOT_FOUND
from serving.gateway.authenticate import authenticate, authorization_of, view_knowing
from serving.gateway.body_budget import MAX_BODY_BYTES, BodyBudget
from serving.gateway.call import Call, CallInterruptedError
from serving.gateway.clock import Clock
from serving.gateway.dispatch import UPSTREAM_FAILED, Dispatcher, upstream_failed
from serving.gateway.engine_client import EngineAnswer, EngineLostError
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import ClientGoneError, Exchange
from serving.gateway.journal_file import Journal
from serving.gateway.limits import RateLimits
from serving.gateway.logs import CALLS
from serving.gateway.metrics import Metrics
from serving.gateway.plan import Plan, plan_request
from serving.gateway.relay import StreamRelay, relay_plain, start_stream
from serving.gateway.replays import Replays
from serving.gateway.settlement import Settlement
from serving.gateway.sse import Usage
from serving.gateway.surfaces import COMPLETIONS, Surface
from serving.gateway.suspects import Suspects
from serving.gateway.traces import Tracing
from serving.gateway.view import CurrentView, View
from serving.gateway.wallet import Wallet
from serving.gateway.watch import Watch

_calls_log = logging.getLogger(CALLS)


class Completions:
    """Chat completions, completions and embeddings."""

    def __init__(
        self,
        *,
        current: CurrentView,
        limits: RateLimits,
        wallet: Wallet,
        dispatcher: Dispatcher,
        settlement: Settlement,
        journal: Journal,
        peppers: Peppers,
        clock: Clock,
        watch: Watch,
        replays: Replays,
        metrics: Metrics,
        tracing: Tracing | None,
        bodies: BodyBudget,
        suspects: Suspects,
        plain: bool,
    ) -> None:
        self._plain = plain
        self._bodies = bodies
        self._watch = watch
        self._replays = replays
        self._metrics = metrics
        self._tracing = tracing
        self._suspects = suspects
        self._current = current
        self._limits = limits
        self._wallet = wallet
        self._dispatcher = dispatcher
        self._settlement = settlement
        self._journal = journal
        self._peppers = peppers
        self._clock = clock

    async def serve(self, exchange: Exchange, surface: Surface) -> None:
        """Answer one request. Raises: GatewayError, ClientGoneError."""
        authorization = authorization_of(exchange.headers)
        view = await view_knowing(self._current, authorization, self._clock)
        now_us = self._clock.now_us()
        key = authenticate(view, authorization, peppers=self._peppers, client_ip=exchange.client_ip, now_us=now_us)
        raw = await exchange.read_body(MAX_BODY_BYTES, self._bodies)
        try:
            plan = await self._plan(view, key, surface, raw, exchange.headers.get("x-session-id", ""))
            self._suspects.check(key.organisation_id, surface.path, raw)
            run = partial(self._admit, exchange, key, plan, raw=raw, started_at=now_us)
            await self._replays.serve(exchange, key, raw, run)
        finally:
            self._bodies.give_back(len(raw))

    async def _admit(self, exchange: Exchange, key: SnapshotKey, plan: Plan, *, raw: bytes, started_at: int) -> None:
        """Run a planned request within the limits of its key and the money of its firm."""
        self._limits.enter(key, plan.worst_tokens)
        call = None
        try:
            hold = await self._wallet.reserve(key, plan.prices, plan.worst_ufen)
            call = Call(exchange, key=key, plan=plan, hold=hold, started_at=started_at)
            if self._tracing is not None:
                call.trace = self._tracing.begin(call)
            try:
                await self._run(exchange, call)
            except EngineLostError as error:
                if call.usage is None and not call.owes_unknown:
                    crowd = self._watch.crowd_on(call)
                    self._suspects.note_death(key.organisation_id, plan.surface.path, raw, crowd=crowd)
                raise upstream_failed(plan.public_name) from error
        finally:
            self._limits.leave(key, plan.worst_tokens, 0 if call is None else call.used_tokens)

    async def _plan(self, view: View, key: SnapshotKey, surface: Surface, raw: bytes, session: str) -> Plan:
        """Plan by the view at hand, or by the next one for a name that does not answer yet."""
        plan = partial(
            plan_request,
            session=session,
            pepper=self._peppers.current,
            now_us=self._clock.now_us(),
            plain=self._plain,
            is_routed=self._dispatcher.is_routed,
        )
        try:
            return plan(view, key, surface, raw)
        except GatewayError as error:
            if error.code not in (MODEL_NOT_FOUND, MODEL_NOT_DEPLOYED):
                raise
            newer = await self._current.find(lambda found: found.version != view.version)
            if newer.version == view.version:
                raise
        return plan(newer, key, surface, raw)

    async def _run(self, exchange: Exchange, call: Call) -> None:
        """Relay the answer; whatever happens, the reservation is settled or given back."""
        reason = EndReason.UPSTREAM_REFUSED
        call.began_at_s = call.sent_at_s = self._clock.monotonic_s()
        self._watch.calls.add(call)
        try:
            with call.interruptible():
                self._watch_client(exchange, call)
                await self._relay(exchange, call)
        except CallInterruptedError as error:
            reason = error.reason
            if call.verdict is not None:
                raise call.verdict from error
        except ClientGoneError:
            reason = EndReason.CLIENT_GONE
        except EngineLostError:
            reason = EndReason.UPSTREAM_DIED
            raise
        except GatewayError as error:
            reason = EndReason.UPSTREAM_DIED if error.code == UPSTREAM_FAILED else EndReason.UPSTREAM_REFUSED
            raise
        except asyncio.CancelledError:
            reason = EndReason.GATEWAY_RESTART
            raise
        finally:
            exchange.on_gone = None
            self._watch.calls.discard(call)
            self._settle(call, reason, False)
            if call.trace is not None:
                call.trace.end(call, call.end_reason or reason)

    async def _relay(self, exchange: Exchange, call: Call) -> None:
        async def keep_waiting() -> None:
            if call.plan.stream:
                start_stream(exchange, call.plan)
                exchange.send(_waiting_comment(call.expected_in_s))

        def take(answer: EngineAnswer) -> Awaitable[None]:
            if not call.plan.stream:
                return relay_plain(exchange, call, answer, settle=self._settle)
            relay = StreamRelay(exchange, call, journal=self._journal, clock=self._clock, settle=self._settle)
            return relay.run(answer)

        while True:
            try:
                await self._dispatcher.send(call, keep_waiting, take)
                return
            except EngineLostError:
                if call.settled or not call.may_continue():
                    raise
                self._continue_elsewhere(call)

    def _continue_elsewhere(self, call: Call) -> None:
        """Bill what the lost engine delivered and make the call go on after its last token on another replica."""
        transcript, replica, usage = call.transcript, call.replica, call.usage
        if transcript is None or replica is None or usage is None:
            raise RuntimeError("only a call with a transcript goes on elsewhere")
        call.usage = usage._replace(completion_tokens=transcript.said_tokens)
        cost = self._cost(call, call.usage)
        spent_ufen, call.hold = self._wallet.settle_part(call.hold, cost)
        self._record(call, replica, EndReason.UPSTREAM_DIED, spent_ufen=spent_ufen, disputed=spent_ufen < cost)
        call.body = transcript.next_request(call.body, usage, call.plan.target.model.context_tokens)
        call.path = COMPLETIONS.path
        call.avoid.add(replica.id)
        call.replica, call.usage, call.answer, call.asked_at_s = None, None, None, 0.0

    def _watch_client(self, exchange: Exchange, call: Call) -> None:
        """Abort a call when its client goes away, unless the answer is kept for a client that asks again."""
        waits_for_retry = exchange.on_gone is not None and not call.plan.stream
        if exchange.tape is None and not waits_for_retry:
            exchange.on_gone = call.client_left
            if exchange.gone:
                raise ClientGoneError

    def _settle(self, call: Call, reason: EndReason, complete: bool) -> None:
        """End the reservation: bill what the engine reported, or give it back if nothing was sent."""
        if call.settled:
            return
        call.settled = True
        if call.replica is None:
            self._wallet.release(call.hold)
            return
        cost = self._cost(call, call.usage or Usage())
        spent_ufen = self._wallet.settle(call.hold, cost)
        unseen = call.usage is None and reason is not EndReason.UPSTREAM_REFUSED
        self._record(
            call,
            call.replica,
            reason,
            complete=complete,
            spent_ufen=spent_ufen,
            disputed=spent_ufen < cost or unseen,
        )

    def _cost(self, call: Call, usage: Usage) -> int:
        return cost_ufen(call.plan.prices, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)

    def _record(
        self,
        call: Call,
        replica: RouteReplica,
        reason: EndReason,
        *,
        spent_ufen: int,
        disputed: bool,
        complete: bool = False,
    ) -> None:
        """Journal the end of the attempt at hand and count its tokens."""
        ended_at, usage = self._clock.now_us(), call.usage or Usage()
        call.end_reason = reason
        record = call.usage_record(replica, ended_at=ended_at, reason=reason, complete=complete, disputed=disputed)
        self._settlement.record(record, spent_ufen)
        call.used_tokens += usage.prompt_tokens + usage.completion_tokens
        self._count(call, reason, usage)

    def _count(self, call: Call, reason: EndReason, usage: Usage) -> None:
        """Count what ended, and say so where lines of calls are wanted; nothing that was said is in it."""
        labels = self._metrics.adapter_labels(call.plan.target)
        took_s = self._clock.monotonic_s() - call.began_at_s
        if call.first_at_s:
            self._metrics.first_token(labels, call.first_at_s - call.began_at_s)
        tokens = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        self._metrics.ended(call.plan.surface.name, labels, reason, tokens=tokens, took_s=took_s)
        if _calls_log.isEnabledFor(logging.INFO):
            _calls_log.info("call", extra={"fields": call.describe(reason, took_s)})


def _waiting_comment(expected_in_s: float | None) -> bytes:
    """Return an SSE comment that keeps the connection open and says what is known."""
    eta = b"" if expected_in_s is None else f", ready in about {expected_in_s:.0f} s".encode()
    return b": waiting for a replica" + eta + b"\n\n"
