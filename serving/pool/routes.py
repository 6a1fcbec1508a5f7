"""The routes that gateways follow, and their long poll; choosing a replica for a request is left to the gateway."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from serving.contract import Purpose, ReplicaState, RouteReplica, Routes
from serving.pool.replica import Replica

_ROUTED = (ReplicaState.READY, ReplicaState.DRAINING)


class RoutesBoard:
    """The current routes. Versions rise over controller restarts too, being µs of the wall clock."""

    def __init__(self) -> None:
        self.routes = Routes(time.time_ns() // 1000, (), {}, {})
        self._changed = asyncio.Event()

    def publish(self, replicas: tuple[RouteReplica, ...], placement: Mapping[str, tuple[str, ...]]) -> None:
        """Show new routes under a new version, unless they are the old ones."""
        if (replicas, placement) == (self.routes.replicas, self.routes.placement):
            return
        version = max(self.routes.version + 1, time.time_ns() // 1000)
        self.routes = Routes(version, replicas, dict(placement), dict(placement))
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, after: int, wait_s: float) -> Routes | None:
        """Routes of another version than `after`, None when they stay the same for `wait_s`."""
        if self.routes.version == after:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        return None if self.routes.version == after else self.routes


def routed_replicas(replicas: Iterable[Replica]) -> tuple[RouteReplica, ...]:
    """Serve replicas that are ready or draining, by id."""
    return tuple(
        RouteReplica(
            id=replica.replica_id,
            epoch=replica.process.epoch,
            url=replica.process.url,
            base_digest=replica.planned.replica_set.base_digest,
            draining=replica.state is ReplicaState.DRAINING,
        )
        for replica in sorted(replicas, key=lambda item: item.replica_id)
        if replica.state in _ROUTED and replica.planned.replica_set.purpose is Purpose.SERVE
    )


def routed_adapters(replicas: Iterable[Replica]) -> dict[str, tuple[str, ...]]:
    """Replica ids by adapter digest: where it is loaded, warmed up and may be called."""
    placement: dict[str, tuple[str, ...]] = {}
    for replica in sorted(replicas, key=lambda item: item.replica_id):
        if replica.state in _ROUTED and replica.planned.replica_set.purpose is Purpose.SERVE:
            for digest in replica.shelf.ready_digests():
                placement[digest] = (*placement.get(digest, ()), replica.replica_id)
    return dict(sorted(placement.items()))
