"""Pure rules of tuning: device time of a quote, limits and retries of a run, and the gate before publishing.

It leaves states to `hub.tuning.states` and money to `hub.orders`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.spec import Fault, Result, State
from hub.compute.rules import estimate_device_ms

QUOTE_HEADROOM_NUM, QUOTE_HEADROOM_DEN = 5, 4
"""A quote covers a quarter more than the estimate: the customer never pays above it, and less if less is used."""

MAX_PLATFORM_ATTEMPTS = 3
CANCEL_GRACE_S = 15.0
_RETRIED_REASONS = frozenset({"internal", "storage_failed", "lost"})
_LEAST_LIMIT_MS = 120_000


def quote_device_ms(plan: Mapping[str, Any], *, tokens_per_s: int, device: str) -> int:
    """Return the device time that a quote on an offer covers, in ms.

    The plan's measurement bounds what an offer of the same kind of device promises; another kind counts as offered.
    """
    estimate = plan["estimate"]
    speed = float(tokens_per_s)
    if estimate["basis"] == "measured" and plan["device"].partition(":")[0] == device:
        speed = min(speed, float(estimate["tokens_per_s"]))
    train_ms = estimate_device_ms(plan["tokens"], max(1, int(speed)))
    beside_ms = int(estimate["device_ms"]) - int(estimate.get("train_ms", estimate["device_ms"]))
    return -(-(train_ms + beside_ms) * QUOTE_HEADROOM_NUM // QUOTE_HEADROOM_DEN)


def limit_device_ms(quoted_device_ms: int) -> int:
    """Return when a run is stopped as stuck: three times what was quoted, at least two minutes."""
    return max(_LEAST_LIMIT_MS, 3 * quoted_device_ms)


def should_retry(result: Result | None, *, attempts: int) -> bool:
    """Return whether a failed attempt (None: it left no result) is followed by another."""
    if result is not None and result.state is State.PREEMPTED:
        return True
    if attempts >= MAX_PLATFORM_ATTEMPTS:
        return False
    return result is None or (result.fault is Fault.PLATFORM and result.reason_code in _RETRIED_REASONS)


@dataclass(frozen=True)
class GateVerdict:
    """Whether an adapter may be published, with the figures that decided."""

    passed: bool
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {"passed": self.passed, "rule": "held_out_loss_lower", **self.figures}


def judge_gate(metrics: Mapping[str, Any]) -> GateVerdict:
    """Return whether the adapter's held-out loss is strictly below its base's."""
    base, adapter = float(metrics["base"]["loss"]), float(metrics["adapter"]["loss"])
    return GateVerdict(adapter < base, {"base_loss": base, "adapter_loss": adapter})
