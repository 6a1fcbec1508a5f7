"""Looks after running calls: deadlines, blocks that cut, revoked keys, and signs of life for waiting clients.

Starting and ending calls is left to `completions`; this file only interrupts them.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.contract import EndReason, InFlight
from serving.gateway.access import blocked_error, find_block
from serving.gateway.authenticate import find_end
from serving.gateway.call import Call
from serving.gateway.clock import Clock
from serving.gateway.errors import ErrorType, GatewayError, Limit
from serving.gateway.routing import Router
from serving.gateway.view import CurrentView, View

_ONE_DEATH_S = 1.0
_KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a call may take: to the first token, between two tokens of a stream, in all.

    `keep_alive_s` is the longest silence on an event stream before a comment is sent.
    """

    first_token_s: float = 300.0
    between_tokens_s: float = 60.0
    total_s: float = 900.0
    keep_alive_s: float = 10.0


class Watch:
    """The running calls of this process."""

    def __init__(self, *, current: CurrentView, router: Router, deadlines: Deadlines, clock: Clock) -> None:
        self.calls: set[Call] = set()
        self._crowds: dict[tuple[str, int], tuple[float, int]] = {}
        self._current = current
        self._router = router
        self._deadlines = deadlines
        self._clock = clock

    def sweep(self) -> None:
        """Interrupt what must not go on and comfort who waits; called several times a second."""
        view, now_s, now_us = self._current.latest(), self._clock.monotonic_s(), self._clock.now_us()
        cuts = view is not None and any(block.in_flight is InFlight.CUT for block in view.blocks)
        for call in tuple(self.calls):
            if view is not None:
                self._cut_revoked(call, view, now_us)
                if cuts:
                    self._cut_blocked(call, view, now_us)
            self._cut_late(call, now_s)
            if call.exchange.streams_events and now_s - call.sent_at_s > self._deadlines.keep_alive_s:
                call.sent_at_s = now_s
                call.exchange.send(_KEEP_ALIVE)

    def crowd_on(self, call: Call) -> int:
        """Return how many calls, `call` included, waited on the same engine for their first token when it died.

        They learn of it one by one within a moment, so the first one's count holds for all.
        """
        if call.replica is None:
            return 1
        now_s, engine = self._clock.monotonic_s(), (call.replica.id, call.replica.epoch)
        silent = [other for other in self.calls if other.usage is None and not other.owes_unknown]
        count = 1 + sum(1 for other in silent if other.replica == call.replica)
        died_at_s, first_count = self._crowds.get(engine, (now_s, 0))
        if now_s - died_at_s > _ONE_DEATH_S:
            died_at_s, first_count = now_s, 0
        self._crowds = {engine: (died_at_s, max(count, first_count))}
        return self._crowds[engine][1]

    def _cut_revoked(self, call: Call, view: View, now_us: int) -> None:
        end = find_end(view, call.key, now_us)
        if end is not None:
            call.interrupt(EndReason.BLOCKED, end)

    def _cut_blocked(self, call: Call, view: View, now_us: int) -> None:
        block = find_block(view, call.key, call.plan.target, now_us=now_us)
        if block is not None and block.in_flight is InFlight.CUT:
            call.interrupt(EndReason.BLOCKED, blocked_error(block))

    def _cut_late(self, call: Call, now_s: float) -> None:
        limits, late = self._deadlines, None
        if now_s - call.began_at_s > limits.total_s:
            text = f"the request ran into its deadline of {limits.total_s:g} s"
            late = _late("deadline_exceeded", text, limit="total_s", value_s=limits.total_s)
        elif call.asked_at_s and call.plan.stream and not call.exchange.slow:
            # An engine may also be silent before the head of its answer.
            silent_s = now_s - (call.asked_at_s if call.answer is None else call.answer.last_byte_s)
            if call.usage is None and silent_s > limits.first_token_s:
                text = f"no token came within {limits.first_token_s:g} s"
                late = _late("first_token_late", text, limit="first_token_s", value_s=limits.first_token_s)
            elif call.usage is not None and silent_s > limits.between_tokens_s:
                text = f"no further token came within {limits.between_tokens_s:g} s"
                late = _late("token_late", text, limit="between_tokens_s", value_s=limits.between_tokens_s)
            if late is not None and call.replica is not None:
                self._router.suspect(call.replica, hard=True)
        if late is not None:
            call.interrupt(EndReason.TIMEOUT, late)


def _late(code: str, text: str, *, limit: str, value_s: float) -> GatewayError:
    ran_into = Limit(limit, value_s, f"gateway option --{limit.replace('_', '-')}", value_s)
    return GatewayError(504, code, f"{text}; ask for fewer tokens or retry", kind=ErrorType.SERVER, limit=ran_into)
