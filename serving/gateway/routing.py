"""Which replica answers a request, and how much load each artifact has here.

Where adapters are loaded is the pool controller's decision; this file picks among what it offers.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from serving.contract import DemandRow, RouteReplica, Routes
from serving.gateway.access import Target
from serving.gateway.adapter_slots import AdapterSlots
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError, Limit, unavailable

MAX_QUEUED = 512
MAX_QUEUED_PER_MODEL = 256
BOUNDED_LOAD = 1.25
# A replica that refused a connection is left alone for this long unless it is the only one.
SUSPECT_S = 2.0
MAX_SUSPECT_S = 60.0


class Router:
    """The newest routes, requests in flight per replica, and requests waiting per artifact."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._routes = Routes(version=0, replicas=(), placement={}, resident={})
        self._changed = asyncio.Event()
        self._offers: dict[tuple[str, str], list[RouteReplica]] = {}
        self._on_replica: Counter[str] = Counter()
        self._on_digest: Counter[str] = Counter()
        self._suspect_until_s: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._waiting_since_s: dict[str, list[float]] = {}
        self.slots = AdapterSlots(clock)
        self.wanted = asyncio.Event()
        """Set when a request finds no replica at all, so that the pool hears of it at once."""

    @property
    def version(self) -> int:
        """Return the version of the routes held."""
        return self._routes.version

    def replace(self, routes: Routes) -> None:
        """Take new routes and wake every waiting request."""
        self._routes = routes
        self._offers = {}
        known = {replica.id for replica in routes.replicas}
        self._suspect_until_s = {name: at for name, at in self._suspect_until_s.items() if name in known}
        self._failures = Counter({name: count for name, count in self._failures.items() if name in known})
        for counts in (self._on_replica, self._on_digest):
            for name in [name for name, count in counts.items() if not count]:
                del counts[name]
        self.slots.keep(routes.replicas)
        self._changed.set()
        self._changed = asyncio.Event()

    def pick(self, target: Target, *, tried: Collection[str] = (), affinity: bytes = b"") -> RouteReplica | None:
        """Return a replica that can answer `target`; None when there is none.

        Calls with the same `affinity` (a session, or how the prompt begins) go to the same one while it carries at most
        1.25 of the mean load; without it the least loaded one is taken. Those that hold the adapter come first.
        """
        offered = self.offer(target, tried)
        if len(offered) < 2:
            return offered[0] if offered else None
        resident = self._routes.resident.get(target.digest, ())
        if not affinity:
            return min(offered, key=lambda each: (each.id not in resident, self._on_replica[each.id], each.id))
        loads = self._on_replica
        bound = BOUNDED_LOAD * (1 + sum(loads[each.id] for each in offered)) / len(offered)
        return min(
            offered,
            key=lambda each: (
                loads[each.id] + 1 > max(1.0, bound),
                each.id not in resident,
                _weigh(affinity, each.id),
            ),
        )

    def offer(self, target: Target, tried: Collection[str] = ()) -> list[RouteReplica]:
        """Return every replica that can answer `target`, those under suspicion only when there is no other."""
        offered = self._candidates(target)
        if tried:
            offered = [replica for replica in offered if replica.id not in tried]
        if self._suspect_until_s:
            now_s = self._clock.monotonic_s()
            offered = [each for each in offered if self._suspect_until_s.get(each.id, 0.0) <= now_s] or offered
        return [each for each in offered if each.merged is not None] or offered

    def expected_in_s(self, target: Target) -> float | None:
        """Return in how many seconds a replica of the base will probably be ready, None when none is starting."""
        at_us = self._routes.expected.get(target.model.base_digest)
        return None if at_us is None else max(1.0, (at_us - self._clock.now_us()) / 1e6)

    def suspect(self, replica: RouteReplica, *, hard: bool = False) -> None:
        """Prefer other replicas: for 2 s, and while it keeps failing `hard` twice as long each time, up to a minute.

        The first request after that is the probe: it alone goes there until the replica has answered again.
        """
        pause_s = SUSPECT_S
        if hard:
            self._failures[replica.id] += 1
            pause_s = min(MAX_SUSPECT_S, SUSPECT_S * 2.0 ** (self._failures[replica.id] - 1))
        self._suspect_until_s[replica.id] = self._clock.monotonic_s() + pause_s

    def probing(self, replica: RouteReplica) -> None:
        """Note that a request goes out; a replica that failed before gets no second one until `answered`."""
        if self._failures and self._failures[replica.id]:
            self._suspect_until_s[replica.id] = self._clock.monotonic_s() + SUSPECT_S

    def answered(self, replica: RouteReplica) -> None:
        """Trust a replica again."""
        if self._suspect_until_s:
            self._suspect_until_s.pop(replica.id, None)
            self._failures.pop(replica.id, None)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when the routes changed or after `timeout_s`."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    @contextmanager
    def queued(self, target: Target) -> Iterator[None]:
        """Count a request as waiting for a replica. Raises: GatewayError 503 when too many wait."""
        waiting = self._waiting_since_s.setdefault(target.digest, [])
        in_all = sum(map(len, self._waiting_since_s.values()))
        if len(waiting) >= MAX_QUEUED_PER_MODEL or in_all >= MAX_QUEUED:
            raise self._queue_full(target, len(waiting), in_all)
        since_s = self._clock.monotonic_s()
        waiting.append(since_s)
        try:
            yield
        finally:
            waiting.remove(since_s)
            if not waiting:
                self._waiting_since_s.pop(target.digest, None)

    def begin(self, replica: RouteReplica, target: Target) -> None:
        """Count a request that entered its slot as running on `replica`, until `end`."""
        self._on_replica[replica.id] += 1
        self._on_digest[target.digest] += 1

    def end(self, replica: RouteReplica, target: Target) -> None:
        """Count it no longer, and leave its slot."""
        self._on_replica[replica.id] -= 1
        self._on_digest[target.digest] -= 1
        self.slots.leave(replica, target.digest)

    @contextmanager
    def in_flight(self, replica: RouteReplica, target: Target) -> Iterator[None]:
        """Count a request as running meanwhile."""
        self.begin(replica, target)
        try:
            yield
        finally:
            self.end(replica, target)

    @property
    def base_of(self) -> dict[str, str]:
        """Return the base of each digest that the routes offer."""
        by_id = {replica.id: replica.base_digest for replica in self._routes.replicas}
        found = {base: base for base in by_id.values()}
        for digest, ids in self._routes.placement.items():
            bases = [by_id[name] for name in ids if name in by_id]
            if bases:
                found[digest] = bases[0]
        return found

    def running_on(self, target: Target) -> int:
        """Return how many requests of this process run on the replicas of `target`, whatever they ask for."""
        return sum(self._on_replica[replica.id] for replica in self._candidates(target))

    def on_replicas(self) -> list[tuple[str, int]]:
        """Return how many requests of this process run on each replica that the routes offer."""
        return [(replica.id, self._on_replica[replica.id]) for replica in self._routes.replicas]

    def demand(self) -> tuple[DemandRow, ...]:
        """Return one row per artifact with load; the queue wait is that of the longest waiting request."""
        now_s = self._clock.monotonic_s()
        running = {digest for digest, count in self._on_digest.items() if count}
        rows = []
        for digest in sorted(running | self._waiting_since_s.keys()):
            waiting = self._waiting_since_s.get(digest, [])
            wait_ms = int((now_s - min(waiting)) * 1000) if waiting else 0
            rows.append(DemandRow(digest, self._on_digest[digest], len(waiting), wait_ms))
        return tuple(rows)

    def offers(self, base_digest: str, digest: str) -> bool:
        """Whether any replica can answer for an artifact."""
        return bool(self._offering(base_digest, digest))

    def _queue_full(self, target: Target, of_model: int, in_all: int) -> GatewayError:
        retry_after_s = math.ceil(self.expected_in_s(target) or 5)
        name, value, used, whom = "waiting_calls", MAX_QUEUED, in_all, "a replica"
        if of_model >= MAX_QUEUED_PER_MODEL:
            name, value, used = "waiting_calls_of_model", MAX_QUEUED_PER_MODEL, of_model
            whom = target.model.public_name
        text = f"{used} requests already wait for {whom} and {value} may; retry in {retry_after_s} s"
        limit = Limit(name, value, "gateway", used, resets_at=self._clock.iso_in(retry_after_s))
        return unavailable("queue_full", text, retry_after_s=retry_after_s, limit=limit)

    def _candidates(self, target: Target) -> list[RouteReplica]:
        return self._offering(target.model.base_digest, target.digest)

    def _offering(self, base: str, digest: str) -> list[RouteReplica]:
        """Return who offers an artifact; the list is kept as long as the routes are."""
        found = self._offers.get((base, digest))
        if found is None:
            found = self._offers[base, digest] = self._find_offering(base, digest)
        return found

    def _find_offering(self, base: str, digest: str) -> list[RouteReplica]:
        usable = [replica for replica in self._routes.replicas if replica.base_digest == base and not replica.draining]
        if digest == base:
            return [replica for replica in usable if replica.merged is None]
        placed = self._routes.placement.get(digest, ())
        return [replica for replica in usable if replica.id in placed]


def _weigh(affinity: bytes, replica_id: str) -> bytes:
    """Rendezvous hash: the lowest wins, and a replica that comes or goes moves only its own share."""
    return hashlib.blake2b(affinity, digest_size=8, key=replica_id.encode()[:64]).digest()
