"""Pure rules of tuning: device time of a quote, limits and retries of a run, what to do with a trainer that is stuck.

It leaves states to `hub.tuning.states` and money to `hub.orders`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.spec import Fault, Progress, Result, State
from hub.compute.rules import estimate_device_ms

QUOTE_HEADROOM_NUM, QUOTE_HEADROOM_DEN = 5, 4
"""A quote covers a quarter more than the estimate: the customer never pays above it, and less if less is used."""

MOST_TAUGHT_FACTOR = 4
"""Completed runs shorten or lengthen an estimate at most so many times: one odd plan or run decides nothing."""

MAX_PLATFORM_ATTEMPTS = 3
CANCEL_GRACE_S = 15.0
_RETRIED_REASONS = frozenset({"internal", "storage_failed", "lost"})
_KEPT_BY_US = frozenset({"data_changed", "row_not_chat"})
_LEAST_LIMIT_MS = 120_000
OUT_OF_MEMORY = "out_of_memory"
NAN_LOSS = "nan_loss"
STALLED, MAX_DURATION = "stalled", "max_duration"
LEAST_SILENCE_S, MOST_SILENCE_S, SILENT_STEPS = 600.0, 7200.0, 50
"""A trainer writes a line a step, and one every ten seconds while it looks at held-out rows or scores them."""
START_SILENCE_S = 1800.0
"""One part may take long: before its first step a load from a slow disk, while scoring the longest of answers."""
_SCORING = ("evaluating", "scoring")
"""How stages begin in which it generates answers: its steps say nothing of how long one takes."""
BESIDE_S = 1800.0
"""Of an attempt's life that is no device time: loading, packing."""
SLOWED_PERCENT = 50
"""Of the plan's learning rate, from the last commit on, once a loss was no number."""


@dataclass(frozen=True)
class NoResult:
    """Why an attempt ended without a result of its own: the platform's fault, whatever it was."""

    code: str
    text: str


LOST = NoResult("lost", "the trainer ended without a result")


def quote_device_ms(
    plan: Mapping[str, Any], *, tokens_per_s: int, device: str, measured_tokens_per_s: float | None = None
) -> int:
    """Return the device time that a quote on an offer covers, in ms.

    `measured_tokens_per_s` is how fast completed runs of the base were there, all their device time counted.
    """
    train_ms = estimate_device_ms(
        plan["tokens"], max(1, int(expect_speed(plan, tokens_per_s=tokens_per_s, device=device)))
    )
    estimate = plan["estimate"]
    device_ms = train_ms + int(estimate["device_ms"]) - int(estimate.get("train_ms", estimate["device_ms"]))
    if measured_tokens_per_s is not None:
        taught_ms = round(1000 * plan["tokens"] / measured_tokens_per_s)
        device_ms = min(max(taught_ms, device_ms // MOST_TAUGHT_FACTOR), device_ms * MOST_TAUGHT_FACTOR)
    return -(-device_ms * QUOTE_HEADROOM_NUM // QUOTE_HEADROOM_DEN)


def expect_speed(plan: Mapping[str, Any], *, tokens_per_s: int, device: str) -> float:
    """Return the training speed that is expected of an offer before runs there teach better, in tokens per second.

    The plan's measurement bounds what an offer of the same kind of device promises; another kind counts as offered.
    """
    estimate = plan["estimate"]
    if estimate["basis"] == "measured" and plan["device"].partition(":")[0] == device:
        return min(float(tokens_per_s), float(estimate["tokens_per_s"]))
    return float(tokens_per_s)


def limit_device_ms(quoted_device_ms: int) -> int:
    """Return when a run is stopped as stuck: three times what was quoted, at least two minutes."""
    return max(_LEAST_LIMIT_MS, 3 * quoted_device_ms)


def limit_silence_s(newest: Progress | None, quoted_device_ms: int) -> float:
    """Return how long a trainer may report nothing, by its own time of a step so far; `newest` is its last line."""
    if newest is None or newest.step <= 0:
        return max(START_SILENCE_S, quoted_device_ms / 4000)
    least_s = START_SILENCE_S if str(newest.metrics.get("stage", "")).startswith(_SCORING) else LEAST_SILENCE_S
    return min(MOST_SILENCE_S, max(least_s, SILENT_STEPS * newest.device_ms / newest.step / 1000))


def limit_attempt_s(quoted_device_ms: int) -> float:
    """Return how long an attempt may live: what stops its steps, and what is no step."""
    return limit_device_ms(quoted_device_ms) / 1000 + BESIDE_S


def spare_commits_s(newest: Progress | None, life_s: float) -> float:
    """Return how much of an attempt's life does not count: a slow disk is no fault of the work that waits for it.

    At most as long again, since what a trainer says of itself is not trusted.
    """
    return 0.0 if newest is None else min(life_s, max(0.0, newest.committing_ms / 1000))


def find_stuck(*, silent_s: float, lived_s: float, newest: Progress | None, quoted_device_ms: int) -> NoResult | None:
    """Return why a trainer that is alive is to be ended; None while it may go on."""
    silence_s, life_s = limit_silence_s(newest, quoted_device_ms), limit_attempt_s(quoted_device_ms)
    worked_s = lived_s - spare_commits_s(newest, life_s)
    if silent_s > silence_s:
        text = f"the trainer reported nothing for {silent_s:.0f} s (the limit is {silence_s:.0f} s) and was ended"
        return NoResult(STALLED, f"{text}; start a new run, or choose another offer.")
    if worked_s > life_s:
        text = f"the trainer ran for {worked_s:.0f} s (the limit by its quote is {life_s:.0f} s) and was ended"
        return NoResult(MAX_DURATION, f"{text}; start a new run, or choose another offer.")
    return None


def should_retry(result: Result | None, *, attempts: int) -> bool:
    """Return whether a failed attempt (None: it left no result) is followed by another."""
    if result is not None and result.state is State.PREEMPTED:
        return True
    if attempts >= MAX_PLATFORM_ATTEMPTS:
        return False
    return result is None or (result.fault is Fault.PLATFORM and result.reason_code in _RETRIED_REASONS)


def find_fault(result: Result | None) -> Fault:
    """Return whose fault the end of an attempt was; without a result the platform's.

    The trainer blames who brought its files. Here the platform keeps them, checked, and no customer can change them.
    """
    if result is None or result.reason_code in _KEPT_BY_US:
        return Fault.PLATFORM
    return result.fault


def is_interrupted(result: Result | None) -> bool:
    """Return whether an attempt ended before its work was done and may go on: stopped on request, or gone."""
    return result is None or result.state is State.PREEMPTED


def should_halve(result: Result | None, device_batch_tokens: int | None) -> bool:
    """Return whether an attempt that ran out of device memory is tried once more with smaller parts."""
    return result is not None and result.reason_code == OUT_OF_MEMORY and device_batch_tokens is None


def halve_batch(plan: Mapping[str, Any]) -> int:
    """Return half the plan's tokens per step, at least 64; steps and bill stay as quoted."""
    return max(64, int(plan["recipe"]["batch_tokens"]["value"]) // 2)


def should_slow(result: Result | None, rate_percent: int | None) -> bool:
    """Return whether an attempt whose loss was no number is tried once more at a lower learning rate."""
    return result is not None and result.reason_code == NAN_LOSS and rate_percent is None


def explain_end(
    result: Result | None, *, why: NoResult, device_batch_tokens: int | None, rate_percent: int | None
) -> str:
    """Return the sentence about an attempt that is not followed by another; `why` it left no result, if so."""
    if result is None:
        return why.text
    if result.reason_code == OUT_OF_MEMORY and device_batch_tokens is not None:
        return (
            f"the device ran out of memory twice, the second time with {device_batch_tokens} tokens at once; "
            "lower recipe.batch_tokens or recipe.max_length, or choose an offer with more memory."
        )
    if result.reason_code == NAN_LOSS and rate_percent is not None:
        return (
            f"the loss was no number twice, the second time at {rate_percent} % of the learning rate: {result.message}"
        )
    return result.message
