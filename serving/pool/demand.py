"""What gateways say is being asked for; deciding on replicas is left to placement."""

from collections.abc import Callable, Iterable

from serving.contract import Demand, Desired
from serving.pool.placement import SetLoad

_STALE_S = 5.0


class DemandBoard:
    """Last row of each gateway and the last call of each digest. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], idle_stop_s: float) -> None:
        self._clock = clock
        self._idle_stop_s = idle_stop_s
        self._last_call: dict[str, float] = {}
        self._waits: dict[str, dict[str, tuple[float, int]]] = {}

    def record(self, demand: Demand) -> None:
        """Take one gateway's whole picture of this second."""
        now = self._clock()
        self._waits[demand.gateway_id] = {row.digest: (now, row.queue_wait_ms) for row in demand.rows}
        for row in demand.rows:
            if row.in_flight + row.queued > 0:
                self._last_call[row.digest] = now

    def loads(self, desired: Desired) -> dict[str, SetLoad]:
        """Load by set: a set is called through its base and through the adapters of its base."""
        loads = {}
        for replica_set in desired.replica_sets:
            base = replica_set.base_digest
            digests = {base} | {item.digest for item in desired.adapters if item.base_digest == base}
            loads[replica_set.set_id] = SetLoad(self._is_called(digests), self._longest_wait_ms(digests))
        return loads

    def _is_called(self, digests: Iterable[str]) -> bool:
        now = self._clock()
        never = float("-inf")
        return any(now - self._last_call.get(digest, never) < self._idle_stop_s for digest in digests)

    def _longest_wait_ms(self, digests: set[str]) -> int:
        now = self._clock()
        rows = [row for gateway in self._waits.values() for digest, row in gateway.items() if digest in digests]
        return max((wait_ms for at, wait_ms in rows if now - at < _STALE_S), default=0)
