"""What merging a hot adapter would gain: which adapters are hot, and how much slower a slot is than the base's weights.

Whether that is worth an engine of its own is the hub's decision.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from statistics import median

from serving.contract import BASE_ENGINE_NAME, engine_name
from serving.pool.engine_client import EngineClient

LEAST_SHARE = 0.15
LEAST_LOAD = 0.5
MEASURED_AGAIN_S = 7 * 24 * 3600.0
"""An engine of another release may have another gain; until it is measured again the old one counts."""
_ROUNDS, _CALLS, _TOKENS = 3, 4, 32


@dataclass(frozen=True)
class Gain:
    """An adapter's part of the load of its base, and its speed-up by merging once that was measured."""

    share: float = 0.0
    speed_up: float | None = None


@dataclass
class GainBook:
    """Loads by digest, and by digest a measured speed-up and when it was measured (seconds since 1970)."""

    loads: dict[str, float] = field(default_factory=dict)
    speed_ups: dict[str, tuple[float, float]] = field(default_factory=dict)


class GainMeter:
    """Loads smoothed over `window_s`, and speed-ups. `book` is what an earlier controller knew, `clock` wall time.

    Both are kept over a restart: merged weights can be measured no more, and without a share they would be split off.
    """

    def __init__(self, window_s: float, book: GainBook | None = None, clock: Callable[[], float] = time.time) -> None:
        self._window_s = window_s
        self._clock = clock
        self.book = book or GainBook()

    def note(self, activity: Mapping[str, float], elapsed_s: float) -> None:
        """Take in what was under way and waiting by digest in the last `elapsed_s` seconds."""
        weight = min(1.0, elapsed_s / self._window_s)
        loads = self.book.loads
        for digest in loads.keys() | activity.keys():
            before = loads.get(digest, 0.0)
            loads[digest] = before + weight * (activity.get(digest, 0.0) - before)
        self.book.loads = {digest: load for digest, load in loads.items() if load > 1e-3}

    def keep_only(self, digests: Collection[str]) -> None:
        """Forget the speed-ups of adapters that nobody wants any more."""
        self.book.speed_ups = {name: known for name, known in self.book.speed_ups.items() if name in digests}

    def read(self, digest: str, family: Collection[str]) -> Gain:
        """Return what is known of an adapter; `family` are the digests of its base and of all adapters on it."""
        loads, measured = self.book.loads, self.book.speed_ups.get(digest)
        total = sum(loads.get(other, 0.0) for other in family)
        share = loads.get(digest, 0.0) / total if total else 0.0
        return Gain(share, measured[0] if measured else None)

    def is_due(self, digest: str, family: Collection[str]) -> bool:
        """Whether an adapter is hot and was not measured lately."""
        _speed_up, measured_at = self.book.speed_ups.get(digest, (None, float("-inf")))
        if self._clock() - measured_at < MEASURED_AGAIN_S:
            return False
        is_hot = self.read(digest, family).share >= LEAST_SHARE
        return is_hot and self.book.loads.get(digest, 0.0) >= LEAST_LOAD

    async def measure(self, digest: str, engine: EngineClient) -> None:
        """Time an adapter in its slot beside the base by turns, under whatever load there is. Raises: EngineError.

        An engine of merged weights computes as the base does, and without the slots' machinery: this is the least gain.
        """
        ratios = []
        for _ in range(_ROUNDS):
            slot_s = await engine.time_calls(engine_name(digest), calls=_CALLS, tokens=_TOKENS)
            base_s = await engine.time_calls(BASE_ENGINE_NAME, calls=_CALLS, tokens=_TOKENS)
            ratios.append(slot_s / base_s)
        self.book.speed_ups[digest] = (median(ratios), self._clock())
