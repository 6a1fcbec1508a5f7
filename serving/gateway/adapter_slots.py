"""Which adapters compute on each engine now, and which wait for one of its few slots: in order, and none for ever.

An engine computes with `max_loras` adapters at once and prefers those it has: one more would wait behind any stream of
calls to the others (vLLM issue 16876). So calls wait here. An adapter that waited too long closes the door to new calls
of the one that has computed longest, whose slot it gets when its calls have ended (the idea of SGLang's draining).
Which replica is `routing`'s choice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from serving.contract import RouteReplica
from serving.gateway.clock import Clock

PATIENCE_S = 2.0


@dataclass(eq=False)
class _Waiter:
    since_s: float
    granted: asyncio.Future[bool]


@dataclass(eq=False)
class _Engine:
    """Calls under way by adapter in the order that the adapters came; those with a closed door; who waits."""

    slots: int
    active: dict[str, int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    waiting: dict[str, deque[_Waiter]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class AdapterSlots:
    """Of all engines that this gateway calls."""

    def __init__(self, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._engines: dict[str, _Engine] = {}

    def try_enter(self, replica: RouteReplica, digest: str) -> bool:
        """Take part in an adapter's slot if that needs no wait; whoever enters must `leave`."""
        if not _needs_slot(replica, digest):
            return True
        engine = self._engine(replica)
        if digest in engine.waiting or digest in engine.closed:
            return False
        if digest not in engine.active and len(engine.active) >= engine.slots:
            return False
        engine.active[digest] = engine.active.get(digest, 0) + 1
        return True

    async def enter(self, replica: RouteReplica, digest: str, timeout_s: float) -> bool | None:
        """Wait for it: True when entered, None when not within `timeout_s`, False when the engine left the routes."""
        engine = self._engine(replica)
        waiter = _Waiter(self._clock.monotonic_s(), asyncio.get_running_loop().create_future())
        engine.waiting.setdefault(digest, deque()).append(waiter)
        self._arm(engine)
        try:
            done, _ = await asyncio.wait((waiter.granted,), timeout=timeout_s)
        except asyncio.CancelledError:
            if waiter.granted.done() and waiter.granted.result():
                self.leave(replica, digest)
            raise
        finally:
            self._stop_waiting(engine, digest, waiter)
        return waiter.granted.result() if done else None

    def leave(self, replica: RouteReplica, digest: str) -> None:
        """End one call; the last one of an adapter frees its slot for whoever waits longest."""
        engine = self._engines.get(replica.id)
        if engine is None or digest not in engine.active:
            return
        engine.active[digest] -= 1
        if not engine.active[digest]:
            del engine.active[digest]
            engine.closed.discard(digest)
            self._hand_out(engine)

    def keep(self, replicas: tuple[RouteReplica, ...]) -> None:
        """Forget engines that left the routes; their waiting calls look for another."""
        known = {replica.id: replica for replica in replicas}
        for name in [name for name in self._engines if name not in known]:
            engine = self._engines.pop(name)
            for queue in engine.waiting.values():
                for waiter in queue:
                    waiter.granted.set_result(False)
            engine.waiting.clear()
        for name, engine in self._engines.items():
            engine.slots = known[name].max_loras

    def _engine(self, replica: RouteReplica) -> _Engine:
        found = self._engines.get(replica.id)
        if found is None:
            found = self._engines[replica.id] = _Engine(replica.max_loras)
        return found

    def _hand_out(self, engine: _Engine) -> None:
        """Free slots to the longest waiting adapters, and doors open again that nobody needs closed any more."""
        while engine.waiting and len(engine.active) < engine.slots:
            fresh = [digest for digest in engine.waiting if digest not in engine.active]
            if not fresh:
                break
            digest = min(fresh, key=lambda name: engine.waiting[name][0].since_s)
            _admit(engine, digest)
        starving = sum(digest not in engine.active for digest in engine.waiting)
        for digest in list(engine.closed)[: max(0, len(engine.closed) - starving)]:
            engine.closed.discard(digest)
            if digest in engine.waiting:
                _admit(engine, digest)

    def _arm(self, engine: _Engine) -> None:
        if engine.timer is None:
            engine.timer = asyncio.get_running_loop().call_later(self._patience_s, self._close_doors, engine)

    def _close_doors(self, engine: _Engine) -> None:
        """One closed door for each adapter that waited too long."""
        engine.timer = None
        late_s = self._clock.monotonic_s() - self._patience_s
        late = sum(
            queue[0].since_s <= late_s for digest, queue in engine.waiting.items() if digest not in engine.active
        )
        for digest in engine.active:
            if len(engine.closed) >= late:
                break
            engine.closed.add(digest)
        if engine.waiting:
            self._arm(engine)

    def _stop_waiting(self, engine: _Engine, digest: str, waiter: _Waiter) -> None:
        queue = engine.waiting.get(digest)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del engine.waiting[digest]
        if not engine.waiting:
            engine.closed.clear()


def _admit(engine: _Engine, digest: str) -> None:
    """Let all waiting calls of an adapter in: together they cost no more slots than one."""
    queue = engine.waiting.pop(digest)
    engine.active[digest] = engine.active.get(digest, 0) + len(queue)
    for waiter in queue:
        waiter.granted.set_result(True)


def _needs_slot(replica: RouteReplica, digest: str) -> bool:
    return replica.max_loras > 0 and digest not in (replica.base_digest, replica.merged)
