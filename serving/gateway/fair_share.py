"""Who goes next when an engine has as many calls as it can run at once: the firm that was served the least tokens.

Virtual token counters (Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): a prompt token
counts once, a generated one twice; a firm that comes back starts level with those who are there. The counters are
shared by the processes of this gateway. Which replica is best is left to `routing`, how often a key may call to
`limits`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from serving.contract import RouteReplica
from serving.gateway.access import Target
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError, Limit, unavailable
from serving.gateway.shared_table import SharedTable

MAX_WAITING = 512
CALLS_PER_REPLICA = 256
KEEP_ALIVE_S = 3.0
COMPLETION_WEIGHT = 2
_FIRST_GUESS = 256
_MAX_RETRY_AFTER_S = 60

Offer = Callable[[Target, Collection[str]], Sequence[RouteReplica]]


@dataclass(eq=False)
class Turn:
    """One call's place on a replica; `charged` is what its firm was charged for it beforehand."""

    organisation_id: str
    replica: RouteReplica
    charged: int
    began_s: float


@dataclass(eq=False)
class _Waiter:
    """A call in the queue and the replicas that it could go to."""

    replicas: dict[str, RouteReplica]
    granted: asyncio.Future[Turn] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairShare:
    """Turns on replicas. `offer` returns the replicas that could answer a target, best first."""

    def __init__(
        self,
        offer: Offer,
        table: SharedTable,
        *,
        clock: Clock,
        hold_s: float,
        per_replica: int = CALLS_PER_REPLICA,
        peers: int = 1,
    ) -> None:
        self._offer = offer
        self._hold_s = hold_s
        self._table = table
        self._clock = clock
        self._cap = -(-per_replica // peers)
        self._running: Counter[str] = Counter()
        self._held: Counter[tuple[str, str]] = Counter()
        self._here: Counter[str] = Counter()
        self._queues: dict[str, deque[_Waiter]] = {}
        self._guess: dict[str, int] = {}
        self._call_s = 1.0
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return sum(map(len, self._queues.values()))

    async def enter(
        self,
        organisation_id: str,
        target: Target,
        replica: RouteReplica,
        *,
        tried: Collection[str],
        give_up_at_s: float,
        keep_waiting: Callable[[], Awaitable[None]],
    ) -> Turn | None:
        """Return a turn on `replica` or on another that will do; None when there is none left to wait for.

        Raises: GatewayError 503 when too many wait or the call waited too long.
        """
        now_s = self._clock.monotonic_s()
        if not self._queues and self._running[replica.id] < self._cap:
            return self._begin(organisation_id, replica, now_s, level=self._level(organisation_id, now_s))
        waiter = self._queue(organisation_id, {each.id: each for each in self._offer(target, tried)})
        try:
            while waiter.replicas:
                for each in waiter.replicas.values():
                    self._serve_next(each)
                left_s = give_up_at_s - self._clock.monotonic_s()
                if left_s <= 0 and not waiter.granted.done():
                    raise self._too_late()
                await self._pause(waiter, min(KEEP_ALIVE_S, max(0.0, left_s)))
                if waiter.granted.done():
                    return waiter.granted.result()
                await keep_waiting()
                waiter.replicas = {each.id: each for each in self._offer(target, tried)}
            return None
        except BaseException:
            self._give_back(waiter)
            raise
        finally:
            self._leave_queue(organisation_id, waiter)

    def look_again(self, known: Collection[str]) -> None:
        """Let every waiting call look at the replicas anew, because they changed; forget those that are gone."""
        for name in [name for name, count in self._running.items() if not count and name not in known]:
            del self._running[name]
        self._changed.set()
        self._changed = asyncio.Event()

    def leave(self, turn: Turn, *, prompt_tokens: int, completion_tokens: int) -> None:
        """End a turn: charge what it really took and let the next one in."""
        organisation_id, now_s = turn.organisation_id, self._clock.monotonic_s()
        took = prompt_tokens + COMPLETION_WEIGHT * completion_tokens
        if took:
            self._guess[organisation_id] = (7 * self._guess.get(organisation_id, _FIRST_GUESS) + took) // 8
            self._call_s += (now_s - turn.began_s - self._call_s) / 16
        row = self._table.lock(organisation_id, now_s)
        row.served = max(0, row.served + took - turn.charged)
        self._table.unlock(row)
        self._free(organisation_id, turn.replica)

    async def _pause(self, waiter: _Waiter, pause_s: float) -> None:
        """Return at the waiter's turn, when replicas changed, or after a while."""
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((waiter.granted, changed), timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    def _begin(self, organisation_id: str, replica: RouteReplica, now_s: float, *, level: int = 0) -> Turn:
        charged = self._guess.get(organisation_id, _FIRST_GUESS)
        row = self._table.lock(organisation_id, now_s)
        row.served = max(row.served, level) + charged
        self._table.unlock(row)
        self._running[replica.id] += 1
        self._held[replica.id, organisation_id] += 1
        self._here[organisation_id] += 1
        return Turn(organisation_id, replica, charged, now_s)

    def _level(self, organisation_id: str, now_s: float) -> int:
        """Return the least counter of the firms here: whoever comes back after a pause has saved nothing up."""
        if self._here[organisation_id] or organisation_id in self._queues:
            return 0
        return min((self._served(other, now_s) for other in {*self._here, *self._queues}), default=0)

    def _served(self, organisation_id: str, now_s: float) -> int:
        with self._table.row(organisation_id, now_s) as row:
            return row.served

    def _free(self, organisation_id: str, replica: RouteReplica) -> None:
        self._running[replica.id] -= 1
        self._held[replica.id, organisation_id] -= 1
        self._here[organisation_id] -= 1
        if not self._held[replica.id, organisation_id]:
            del self._held[replica.id, organisation_id]
        if not self._here[organisation_id]:
            del self._here[organisation_id]
        if self._queues:
            self._serve_next(replica)

    def _has_room(self, replica_id: str, organisation_id: str, served: dict[str, int]) -> bool:
        """Return whether a firm may take a place.

        The least served one may exceed the cap by an eighth when it has none: long streams of others lock nobody out.
        """
        running = self._running[replica_id]
        if running < self._cap or self._held[replica_id, organisation_id]:
            return running < self._cap
        least = all(served[organisation_id] <= count for count in served.values())
        return least and running < self._cap + max(1, self._cap // 8)

    def _serve_next(self, replica: RouteReplica) -> None:
        """Give what is free on a replica to waiting calls, the least served firm first, in order within a firm."""
        now_s = self._clock.monotonic_s()
        while chosen := self._choose(replica.id, now_s):
            organisation_id, waiter = chosen
            waiter.granted.set_result(self._begin(organisation_id, waiter.replicas[replica.id], now_s))
            self._queues[organisation_id].remove(waiter)

    def _choose(self, replica_id: str, now_s: float) -> tuple[str, _Waiter] | None:
        served = {name: self._served(name, now_s) for name in {*self._here, *self._queues}}
        for organisation_id in sorted(self._queues, key=lambda name: served[name]):
            if not self._has_room(replica_id, organisation_id, served):
                continue
            for waiter in self._queues[organisation_id]:
                if replica_id in waiter.replicas:
                    return organisation_id, waiter
        return None

    def _queue(self, organisation_id: str, replicas: dict[str, RouteReplica]) -> _Waiter:
        """Join the queue; when it is full, the last call of the firm with the most makes room for one with fewer."""
        if self.waiting >= MAX_WAITING:
            largest = max(self._queues, key=lambda name: len(self._queues[name]))
            if len(self._queues.get(organisation_id, ())) + 1 >= len(self._queues[largest]):
                raise self._full()
            self._queues[largest].pop().granted.set_exception(self._full())
        now_s = self._clock.monotonic_s()
        level = self._level(organisation_id, now_s)
        with self._table.row(organisation_id, now_s) as row:
            row.served = max(row.served, level)
        waiter = _Waiter(replicas)
        self._queues.setdefault(organisation_id, deque()).append(waiter)
        return waiter

    def _leave_queue(self, organisation_id: str, waiter: _Waiter) -> None:
        queue = self._queues.get(organisation_id)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
        for name in [name for name, queue in self._queues.items() if not queue]:
            del self._queues[name]

    def _give_back(self, waiter: _Waiter) -> None:
        """Return a place that was granted to a call which went away in the same moment."""
        if waiter.granted.done() and waiter.granted.exception() is None:
            self.leave(waiter.granted.result(), prompt_tokens=0, completion_tokens=0)

    def _retry_after_s(self) -> int:
        """Return roughly how long the queue takes, from the mean length of a call."""
        places = max(1, self._cap * max(1, len(self._running)))
        return int(min(_MAX_RETRY_AFTER_S, max(1.0, self._call_s * (1 + self.waiting / places))))

    def _full(self) -> GatewayError:
        text = f"{MAX_WAITING} calls already wait for their turn, the limit of this gateway; retry later"
        retry_after_s = self._retry_after_s()
        resets_at = self._clock.iso_in(retry_after_s)
        limit = Limit("waiting_calls", MAX_WAITING, "gateway", self.waiting, resets_at=resets_at)
        return unavailable("queue_full", text, retry_after_s=retry_after_s, limit=limit)

    def _too_late(self) -> GatewayError:
        text = f"the engines are busy and {self.waiting} calls wait; this one waited as long as it may; retry later"
        retry_after_s = self._retry_after_s()
        limit = hold_limit(self._hold_s, self._clock, retry_after_s)
        return unavailable("no_turn_in_time", text, retry_after_s=retry_after_s, limit=limit)


def hold_limit(hold_s: float, clock: Clock, retry_after_s: int) -> Limit:
    """Return the limit of a call that waited as long as it may."""
    return Limit("hold_s", hold_s, "gateway option --hold-s", hold_s, resets_at=clock.iso_in(retry_after_s))
