"""What merging a hot adapter would gain: which adapters are hot, and how much slower a slot is than the base's weights.

Whether that is worth an engine of its own is the hub's decision.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median

from serving.contract import BASE_ENGINE_NAME, engine_name
from serving.pool.engine_client import EngineClient

LEAST_SHARE = 0.15
LEAST_LOAD = 0.5
_ROUNDS, _CALLS, _TOKENS = 3, 4, 32


@dataclass(frozen=True)
class Gain:
    """An adapter's part of the load of its base, and its speed-up by merging once that was measured."""

    share: float = 0.0
    speed_up: float | None = None


class GainMeter:
    """Loads by digest, smoothed over `window_s`, and speed-ups measured so far."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._loads: dict[str, float] = {}
        self._speed_ups: dict[str, float] = {}

    def note(self, activity: Mapping[str, float], elapsed_s: float) -> None:
        """Take in what was under way and waiting by digest in the last `elapsed_s` seconds."""
        weight = min(1.0, elapsed_s / self._window_s)
        for digest in self._loads.keys() | activity.keys():
            before = self._loads.get(digest, 0.0)
            self._loads[digest] = before + weight * (activity.get(digest, 0.0) - before)
        self._loads = {digest: load for digest, load in self._loads.items() if load > 1e-3}

    def read(self, digest: str, family: Collection[str]) -> Gain:
        """Return what is known of an adapter; `family` are the digests of its base and of all adapters on it."""
        total = sum(self._loads.get(other, 0.0) for other in family)
        share = self._loads.get(digest, 0.0) / total if total else 0.0
        return Gain(share, self._speed_ups.get(digest))

    def is_due(self, digest: str, family: Collection[str]) -> bool:
        """Whether an adapter is hot and was not measured yet."""
        gain = self.read(digest, family)
        return gain.speed_up is None and gain.share >= LEAST_SHARE and self._loads.get(digest, 0.0) >= LEAST_LOAD

    async def measure(self, digest: str, engine: EngineClient) -> None:
        """Time an adapter in its slot beside the base by turns, under whatever load there is. Raises: EngineError.

        An engine of merged weights computes as the base does, and without the slots' machinery: this is the least gain.
        """
        ratios = []
        for _ in range(_ROUNDS):
            slot_s = await engine.time_calls(engine_name(digest), calls=_CALLS, tokens=_TOKENS)
            base_s = await engine.time_calls(BASE_ENGINE_NAME, calls=_CALLS, tokens=_TOKENS)
            ratios.append(slot_s / base_s)
        self._speed_ups[digest] = median(ratios)
