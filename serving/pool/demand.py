"""What gateways say is being asked for; deciding on replicas is left to scaling and placement."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from serving.contract import Demand, DemandRow, Desired, ReplicaSet
from serving.pool.placement import SetLoad

_STALE_S = 5.0
_SMOOTHING = 0.1
_SAMPLE_S = 1.0
_NEVER = float("-inf")


class DemandBoard:
    """Last rows of each gateway, the last call of each digest and its smoothed load. `clock` is monotonic seconds.

    `on_wake` is called when something is asked for that was not asked for lately.
    """

    def __init__(self, clock: Callable[[], float], on_wake: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._on_wake = on_wake
        self._last_call: dict[str, float] = {}
        self._rows: dict[str, tuple[float, dict[str, DemandRow]]] = {}
        self._activity: dict[str, float] = {}
        self._sampled_at = float("-inf")

    def record(self, demand: Demand) -> None:
        """Take one gateway's whole picture of this second."""
        now = self._clock()
        self._rows[demand.gateway_id] = (now, {row.digest: row for row in demand.rows})
        called = [row.digest for row in demand.rows if row.in_flight + row.queued > 0]
        is_new = any(now - self._last_call.get(digest, _NEVER) > _STALE_S for digest in called)
        self._last_call.update(dict.fromkeys(called, now))
        if is_new:
            self._on_wake()

    def sample(self) -> dict[str, float]:
        """Load by digest, requests under way and waiting, smoothed over about ten seconds."""
        now = self._clock()
        if now - self._sampled_at < _SAMPLE_S:
            return dict(self._activity)
        self._sampled_at = now
        current: dict[str, float] = defaultdict(float)
        for row in self._fresh_rows():
            current[row.digest] += row.in_flight + row.queued
        for digest in self._activity.keys() | current.keys():
            before = self._activity.get(digest, 0.0)
            self._activity[digest] = before + _SMOOTHING * (current.get(digest, 0.0) - before)
        self._activity = {digest: value for digest, value in self._activity.items() if value > 1e-3}
        return dict(self._activity)

    def called_now(self) -> frozenset[str]:
        """Artifacts with requests under way."""
        return frozenset(row.digest for row in self._fresh_rows() if row.in_flight > 0)

    def loads(self, desired: Desired) -> dict[str, SetLoad]:
        """Load by set: a set is called through its base and through the adapters of its base."""
        loads = {}
        for replica_set in desired.replica_sets:
            digests = _digests_of(replica_set, desired)
            is_called = self._is_called(digests, replica_set.idle_s)
            loads[replica_set.set_id] = SetLoad(is_called, self._longest_wait_ms(digests))
        return loads

    def _is_called(self, digests: Iterable[str], idle_s: float) -> bool:
        now = self._clock()
        return any(now - self._last_call.get(digest, _NEVER) < idle_s for digest in digests)

    def _longest_wait_ms(self, digests: set[str]) -> int:
        return max((row.queue_wait_ms for row in self._fresh_rows() if row.digest in digests), default=0)

    def _fresh_rows(self) -> list[DemandRow]:
        now = self._clock()
        return [row for at, rows in self._rows.values() if now - at < _STALE_S for row in rows.values()]


def _digests_of(replica_set: ReplicaSet, desired: Desired) -> set[str]:
    if replica_set.merged is not None:
        return {replica_set.merged}
    base = replica_set.base_digest
    return {base} | {item.digest for item in desired.adapters if item.base_digest == base and not item.merged}
