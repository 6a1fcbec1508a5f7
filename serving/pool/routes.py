"""The routes that gateways follow, and their long poll; choosing a replica for a request is left to the gateway."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from serving.contract import Purpose, ReplicaState, RouteReplica, Routes
from serving.pool.replica import Replica

_ROUTED = (ReplicaState.READY, ReplicaState.DRAINING)


class RoutesBoard:
    """The current routes. Versions rise over controller restarts too, being µs of the wall clock."""

    def __init__(self) -> None:
        self.routes = Routes(time.time_ns() // 1000, (), {}, {})
        self._changed = asyncio.Event()

    def publish(self, routes: Routes) -> None:
        """Show new routes under a new version, unless they are the old ones."""
        version = max(self.routes.version + 1, time.time_ns() // 1000)
        if replace(routes, version=self.routes.version) == self.routes:
            return
        self.routes = replace(routes, version=version)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, after: int, wait_s: float) -> Routes | None:
        """Routes of another version than `after`, None when they stay the same for `wait_s`."""
        if self.routes.version == after:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        return None if self.routes.version == after else self.routes


def describe_routes(replicas: Iterable[Replica]) -> Routes:
    """Routes with version 0: serve replicas that are ready or draining, by id, and where adapters may be called."""
    serving = sorted(
        (replica for replica in replicas if replica.planned.replica_set.purpose is Purpose.SERVE),
        key=lambda replica: replica.replica_id,
    )
    routed = [replica for replica in serving if replica.state in _ROUTED]
    placement = {replica.replica_id: _callable_digests(replica) for replica in routed}
    resident = {
        replica.replica_id: replica.residency.resident(placement[replica.replica_id])
        if replica.planned.replica_set.merged is None
        else placement[replica.replica_id]
        for replica in routed
    }
    expected: dict[str, int] = {}
    for replica in serving:
        at_us, base = replica.expected_at_us(), replica.planned.replica_set.base_digest
        if at_us is not None:
            expected[base] = min(at_us, expected.get(base, at_us))
    return Routes(
        0,
        tuple(_describe_replica(replica) for replica in routed),
        _by_digest(placement),
        _by_digest(resident),
        expected,
    )


def _describe_replica(replica: Replica) -> RouteReplica:
    replica_set = replica.planned.replica_set
    return RouteReplica(
        id=replica.replica_id,
        epoch=replica.process.epoch,
        url=replica.process.url,
        base_digest=replica_set.base_digest,
        draining=replica.state is ReplicaState.DRAINING,
        max_loras=replica_set.max_loras,
        merged=replica_set.merged,
    )


def _callable_digests(replica: Replica) -> frozenset[str]:
    """Adapters that are loaded and warmed up there, or the one that is in its weights."""
    merged = replica.planned.replica_set.merged
    return replica.shelf.ready_digests() if merged is None else frozenset((merged,))


def _by_digest(digests: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Turn digests by replica into sorted replicas by digest."""
    found: dict[str, tuple[str, ...]] = {}
    for replica_id in sorted(digests):
        for digest in digests[replica_id]:
            found[digest] = (*found.get(digest, ()), replica_id)
    return dict(sorted(found.items()))
