"""How many replicas a set should have, by how long requests wait; starting them is left to placement and fleet.

One more once requests have waited for a while and nothing is starting already; one less after a long calm. A calm that
proved too short is doubled, so that a load that comes and goes does not start and stop engines for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serving.contract import ReplicaSet

UP_WAIT_MS = 1000
UP_AFTER_S = 3.0
CALM_WAIT_MS = 100
_MOST_DOUBLINGS = 4


@dataclass
class _Watched:
    """One set: how many it should have, since when its requests wait or do not, how often a calm was too short."""

    count: int = 0
    waiting_since: float | None = None
    calm_since: float | None = None
    stepped_down_at: float = float("-inf")
    doublings: int = 0


class Scaler:
    """Owns the wished number of each set. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sets: dict[str, _Watched] = {}

    def wish(self, replica_set: ReplicaSet, *, queue_wait_ms: int, is_called: bool, ready: int, running: int) -> int:
        """The number wished now, between the set's `min` and `max`; called about once a second."""
        # What runs when a set is first seen was wished by the controller before this one.
        watched = self._sets.setdefault(replica_set.set_id, _Watched(count=running))
        least = max(replica_set.min, int(is_called))
        if not is_called:
            watched.count = least
        watched.count = max(least, min(watched.count, replica_set.max))
        self._note(watched, queue_wait_ms)
        if self._must_grow(watched, ready=ready, running=running):
            self._grow(watched, replica_set)
        elif ready >= running and self._may_shrink(watched, replica_set, least):
            watched.count -= 1
            watched.calm_since = watched.stepped_down_at = self._clock()
        return min(watched.count, replica_set.max)

    def _note(self, watched: _Watched, queue_wait_ms: int) -> None:
        now = self._clock()
        watched.waiting_since = (watched.waiting_since or now) if queue_wait_ms >= UP_WAIT_MS else None
        watched.calm_since = (watched.calm_since or now) if queue_wait_ms < CALM_WAIT_MS else None

    def _must_grow(self, watched: _Watched, *, ready: int, running: int) -> bool:
        """Only when all that was wished is ready: a wait while one starts says nothing."""
        if watched.waiting_since is None or ready < watched.count or ready < running:
            return False
        return self._clock() - watched.waiting_since >= UP_AFTER_S

    def _grow(self, watched: _Watched, replica_set: ReplicaSet) -> None:
        now = self._clock()
        watched.waiting_since = None
        if watched.count >= replica_set.max:
            return
        watched.count += 1
        was_hasty = now - watched.stepped_down_at < replica_set.idle_s
        watched.doublings = min(watched.doublings + 1, _MOST_DOUBLINGS) if was_hasty else max(0, watched.doublings - 1)

    def _may_shrink(self, watched: _Watched, replica_set: ReplicaSet, least: int) -> bool:
        if watched.calm_since is None or watched.count <= least:
            return False
        return self._clock() - watched.calm_since >= replica_set.idle_s * (1 << watched.doublings)
