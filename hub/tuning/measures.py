"""What the figures of the publish gate are called in both languages, in the order in which they are shown.

It leaves the figures to `hub.tuning.gate`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MEASURES: Mapping[str, tuple[str, str]] = {
    "loss": ("留出损失", "Held-out loss"),
    "error_reduction": ("错误消减率 ERR", "Error reduction rate ERR"),
    "exact_match": ("完全一致", "Exact match"),
    "f1": ("F1", "F1"),
    "json_valid": ("JSON 有效", "Valid JSON"),
    "stop_rate": ("自行结束", "Ends by itself"),
    "broken": ("空白或循环的回答", "Empty or looping answers"),
    "probe": ("通用能力题", "General questions"),
    "probe_loss": ("通用能力损失", "Loss on general questions"),
}
"""Chinese and English name by measure."""


@dataclass(frozen=True)
class Measured:
    """One figure of base and adapter with the 95 % interval of the gain; a share unless `is_loss` (nats a token)."""

    name: str
    base: float
    adapter: float
    gain_low: float
    gain_high: float

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss."""
        return self.name.endswith("loss")


def list_measured(scores: Mapping[str, Any]) -> Iterator[Measured]:
    """Yield the figures that the engine's answers gave; none before it was asked."""
    found = dict(scores)
    if "probe" in found:
        found["probe_loss"] = found["probe"]["loss"]
    for name in MEASURES:
        if name in found:
            part = found[name]
            gain = (part["gain_low"], part["gain_high"])
            # Of what should be rare, less is the gain.
            low, high = (0.0 - gain[1], 0.0 - gain[0]) if name == "broken" else gain
            yield Measured(name, part["base"], part["adapter"], low, high)
