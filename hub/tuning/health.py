"""Whether a run's figures look healthy: the band that both losses should stay in, and the checks beside the curve.

It leaves stopping early to the trainer and publishing to the gate: nothing here decides anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RISE, FALL, SLACK_NATS = 1.1, 0.5, 0.02
"""The band around the best held-out loss so far: above it the run gets worse, below it training rows are memorised.

Ours, not from a paper: a tenth above is far more than the least gain that counts (0.2 %), half is a wide gap between
rows learned and rows held out; the slack keeps losses near zero from alarming.
"""
GRADIENT_NORM = (0.1, 10.0)
"""Source: the ranges that axolotl publishes for LoRA runs (research/finetune.md 1.6)."""

Band = tuple[float, float]


@dataclass(frozen=True)
class Check:
    """One figure with its healthy range; an end that is None is open."""

    code: str
    value: float
    low: float | None
    high: float | None

    @property
    def ok(self) -> bool:
        """Whether the figure lies in its range."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


def draw_band(best: float) -> Band:
    """Return lowest and highest healthy loss in nats per token where `best` is the best held-out loss so far."""
    return max(0.0, best * FALL - SLACK_NATS), best * RISE + SLACK_NATS


def add_bands(points: Sequence[dict[str, Any]]) -> None:
    """Give every point from the first held-out loss on its band; points are in order of their steps."""
    best: float | None = None
    for point in points:
        found = point.get("valid_loss")
        if found is not None:
            best = found if best is None else min(best, found)
        if best is not None:
            point["band"] = [round(edge, 6) for edge in draw_band(best)]


def check_health(points: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Return what can be said of a curve with bands; nothing before its first figures."""
    looks = [point for point in points if point.get("valid_loss") is not None]
    steps = [point for point in points if point.get("loss") is not None]
    found = []
    if len(looks) > 1:
        found.append(Check("better_than_base", looks[-1]["valid_loss"], None, looks[0]["valid_loss"]))
        found.append(Check("held_out_steady", looks[-1]["valid_loss"], None, looks[-1]["band"][1]))
    if looks and steps:
        found.append(Check("not_memorised", steps[-1]["loss"], points[-1]["band"][0], None))
    norms = [point["grad_norm"] for point in steps if point.get("grad_norm") is not None]
    if norms:
        found.append(Check("gradient_norm", norms[-1], *GRADIENT_NORM))
    return found
