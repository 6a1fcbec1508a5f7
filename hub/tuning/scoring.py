"""Figures of a task from answers before and after: shares, F1, error reduction, each with its interval. Pure.

It leaves asking the engine to `hub.tuning.examining` and what the figures decide to `hub.tuning.gate`.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hub.tuning.error_reduction import count_words, error_reduction, read_corrections

_RESAMPLES = 1000
_MOST_LABELS = 20
_LOOK_BACK_CHARS = 240
_LOOP = re.compile(r"(.{2,40}?)\1{4,}$", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One held-out case with the engine's answers before and after; `question` is the last thing that was said."""

    expected: str
    base: str
    adapter: str
    question: str = ""


def score_cases(cases: Sequence[Case]) -> dict[str, Any]:
    """Return the task's figures for base and adapter with the paired 95 % interval of each difference.

    Exact match and F1 always; JSON validity where what is expected is JSON; error reduction where words are
    corrected in their places. Figures only: a label is a customer's text, so its report is made for its owner alone.
    """
    measures: dict[str, Callable[[str, str], float]] = {"exact_match": _match, "f1": overlap_f1}
    if cases and all(_is_json(case.expected) for case in cases):
        measures["json_valid"] = lambda answer, _expected: float(_is_json(answer))
    scores: dict[str, Any] = {"n": len(cases), "interval": "paired_bootstrap_95"}
    for name, measure in measures.items():
        base = [measure(case.base, case.expected) for case in cases]
        adapter = [measure(case.adapter, case.expected) for case in cases]
        scores[name] = compare(base, adapter)
    reduction = _score_reduction(cases)
    if reduction is not None:
        scores["error_reduction"] = reduction
    return scores


def compare(base: Sequence[float], adapter: Sequence[float]) -> dict[str, float]:
    """Return both means and the interval of the mean gain; all zero for no rows."""
    if not base:
        return {"base": 0.0, "adapter": 0.0, "gain_low": 0.0, "gain_high": 0.0}
    low, high = bound_gain(base, adapter)
    return _round(fmean(base), fmean(adapter), low, high)


def is_broken(answer: str, expected: str) -> bool:
    """Return whether an answer is empty where something was expected, or says the same piece over and over."""
    text = answer.strip()
    if not text:
        return bool(expected.strip())
    found = _LOOP.search(text[-_LOOK_BACK_CHARS:])
    return found is not None and found[0] not in expected


def _score_reduction(cases: Sequence[Case]) -> dict[str, float] | None:
    rows = read_corrections([(case.question, case.expected, case.base, case.adapter) for case in cases])
    if not rows:
        return None
    base = [count_words(row.raw, row.right, row.base) for row in rows]
    adapter = [count_words(row.raw, row.right, row.adapter) for row in rows]
    places = range(len(rows))
    rng = random.Random(42)  # noqa: S311 - a repeatable interval, not a secret
    gains = []
    for _ in range(_RESAMPLES):
        drawn = rng.choices(places, k=len(rows))
        gains.append(error_reduction([adapter[at] for at in drawn]) - error_reduction([base[at] for at in drawn]))
    low, high = _cut_interval(gains)
    return _round(error_reduction(base), error_reduction(adapter), low, high)


def report_labels(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Return precision, recall and support of each expected answer under the adapter (a classification report).

    Empty where answers do not recur or are too many to be labels.
    """
    labels = Counter(case.expected.strip() for case in cases)
    if not 2 <= len(labels) <= _MOST_LABELS or len(cases) < 2 * len(labels):
        return {}
    pairs = [(case.expected.strip(), case.adapter.strip()) for case in cases]
    report = {}
    for label in sorted(labels):
        hits = sum(expected == label == answer for expected, answer in pairs)
        told = sum(answer == label for _, answer in pairs)
        support = labels[label]
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
    if len(set(gains)) == 1:
        return gains[0], gains[0]
    rng = random.Random(seed)  # noqa: S311 - a repeatable interval, not a secret
    return _cut_interval([fmean(rng.choices(gains, k=len(gains))) for _ in range(_RESAMPLES)])


def _cut_interval(values: list[float]) -> tuple[float, float]:
    ranked = sorted(values)
    return ranked[int(0.025 * _RESAMPLES)], ranked[int(0.975 * _RESAMPLES) - 1]


def _round(base: float, adapter: float, low: float, high: float) -> dict[str, float]:
    return {
        "base": round(base, 6),
        "adapter": round(adapter, 6),
        "gain_low": round(low, 6),
        "gain_high": round(high, 6),
    }


def _match(answer: str, expected: str) -> float:
    return float(answer.strip() == expected.strip())


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
