"""The publish gate's figures: is the served adapter the one that was trained, and what it does to answers. Pure.

It leaves asking the engine to `hub.tuning.proving` and the held-out loss, judged before, to `hub.tuning.rules`.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

TOLERANCE_NATS = 0.1
"""Mean difference per answer token that number formats of trainer and engine may cause (our default)."""
LEAST_EFFECT = 0.5
"""Least share of the trained effect that must arrive at the engine."""
_LEAST_NATS = 1e-4
_RESAMPLES = 1000
_MOST_LABELS = 20


@dataclass(frozen=True)
class LogProbs:
    """Mean log-probability per answer token of the same rows, in nats: by the trainer and by the engine."""

    trained_base: Sequence[float]
    trained_adapter: Sequence[float]
    served_base: Sequence[float]
    served_adapter: Sequence[float]


@dataclass(frozen=True)
class Parity:
    """Whether the served adapter is the trained one; `code` says why not, figures are mean absolute nats per token."""

    passed: bool
    code: str
    figures: dict[str, float]


def judge_parity(found: LogProbs) -> Parity:
    """Compare engine and trainer on base and adapter.

    `adapter_no_effect`: training left the base's own answers. `base_differs`: the engine runs another base.
    `adapter_not_applied`: the engine answers like the base. `adapter_differs`: it runs some other adapter.
    """
    effect = _distance(found.trained_adapter, found.trained_base)
    served_effect = _distance(found.served_adapter, found.served_base)
    base_error = _distance(found.served_base, found.trained_base)
    adapter_error = _distance(found.served_adapter, found.trained_adapter)
    figures = {
        "trained_effect": round(effect, 6),
        "served_effect": round(served_effect, 6),
        "base_error": round(base_error, 6),
        "adapter_error": round(adapter_error, 6),
        "tolerance": TOLERANCE_NATS,
        "rows": len(found.served_base),
    }
    if effect < _LEAST_NATS:
        return Parity(False, "adapter_no_effect", figures)
    if base_error > TOLERANCE_NATS:
        return Parity(False, "base_differs", figures)
    if served_effect < max(_LEAST_NATS, LEAST_EFFECT * effect - TOLERANCE_NATS):
        return Parity(False, "adapter_not_applied", figures)
    if adapter_error > TOLERANCE_NATS:
        return Parity(False, "adapter_differs", figures)
    return Parity(True, "proven", figures)


@dataclass(frozen=True)
class Case:
    """One held-out case with the engine's answers before and after."""

    expected: str
    base: str
    adapter: str


def score_cases(cases: Sequence[Case]) -> dict[str, Any]:
    """Return the task's figures for base and adapter with the paired 95 % interval of each difference.

    Exact match and F1 always; JSON validity where what is expected is JSON; a report by label where few answers recur.
    """
    measures: dict[str, Callable[[str, str], float]] = {"exact_match": _match, "f1": overlap_f1}
    if cases and all(_is_json(case.expected) for case in cases):
        measures["json_valid"] = lambda answer, _expected: float(_is_json(answer))
    scores: dict[str, Any] = {"n": len(cases), "interval": "paired_bootstrap_95"}
    for name, measure in measures.items():
        base = [measure(case.base, case.expected) for case in cases]
        adapter = [measure(case.adapter, case.expected) for case in cases]
        low, high = bound_gain(base, adapter)
        scores[name] = {
            "base": round(fmean(base), 6),
            "adapter": round(fmean(adapter), 6),
            "gain_low": round(low, 6),
            "gain_high": round(high, 6),
        }
    labels = Counter(case.expected.strip() for case in cases)
    if 2 <= len(labels) <= _MOST_LABELS and len(cases) >= 2 * len(labels):
        scores["labels"] = report_labels(cases)
    return scores


def report_labels(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Return precision, recall and support of each expected answer under the adapter (a classification report)."""
    pairs = [(case.expected.strip(), case.adapter.strip()) for case in cases]
    report = {}
    for label in sorted({expected for expected, _ in pairs}):
        hits = sum(expected == label == answer for expected, answer in pairs)
        told = sum(answer == label for _, answer in pairs)
        support = sum(expected == label for expected, _ in pairs)
        report[label] = {
            "precision": round(hits / told, 6) if told else 0.0,
            "recall": round(hits / support, 6),
            "support": support,
        }
    return report


def overlap_f1(answer: str, expected: str) -> float:
    """Return F1 over words; over characters where the expected text has no spaces, as in Chinese."""
    parts = [text.split() if " " in expected.strip() else list(text.strip()) for text in (answer, expected)]
    common = sum((Counter(parts[0]) & Counter(parts[1])).values())
    if not common:
        return float(not parts[0] and not parts[1])
    precision, recall = common / len(parts[0]), common / len(parts[1])
    return 2 * precision * recall / (precision + recall)


def bound_gain(base: Sequence[float], adapter: Sequence[float], *, seed: int = 42) -> tuple[float, float]:
    """Return the 95 % interval of the mean gain, by resampling pairs. Source: Efron & Tibshirani 1993, chapter 13."""
    gains = [after - before for before, after in zip(base, adapter, strict=True)]
    rng = random.Random(seed)  # noqa: S311 - a repeatable interval, not a secret
    means = sorted(fmean(rng.choices(gains, k=len(gains))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]


def _distance(first: Sequence[float], second: Sequence[float]) -> float:
    return fmean(abs(one - other) for one, other in zip(first, second, strict=True))


def _match(answer: str, expected: str) -> float:
    return float(answer.strip() == expected.strip())


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
