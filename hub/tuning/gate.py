"""The publish gate: what the serving engine's figures of base and adapter decide, each rule with value and limit. Pure.

It leaves asking the engine to `hub.tuning.examining` and the figures of answers to `hub.tuning.scoring`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from hub.tuning.scoring import Case, bound_gain, compare, is_broken, score_cases

TOLERANCE_NATS = 0.1
"""Mean difference per answer token that number formats of trainer and engine may cause (our default)."""
LEAST_EFFECT = 0.5
"""Least share of the trained effect that must arrive at the engine."""
MAX_TASK_LOSS, MAX_STOP_LOSS, MAX_BROKEN, MAX_FORGOTTEN = 0.01, 0.01, 0.01, 0.03
"""What an adapter may lose against its base, as shares (our defaults; research/finetune.md 6.8)."""
LEAST_KNOWN, MAX_PROBE_LOSS = 0.2, 0.05
"""Of a base that answers less of the probe and loses more than three points the loss decides: 5 % more (ours)."""
NOT_MEASURED, NO_EFFECT = "gate_not_measured", "adapter_no_effect"
_LEAST_NATS = 1e-4


class Unmeasured(StrEnum):
    """Why no engine's figures stand on a run."""

    NO_ROOM = "no_room"
    NO_ENGINE = "no_engine"
    ENGINE_FAILED = "engine_failed"
    ENGINE_REFUSED = "engine_refused"
    NO_ROWS = "no_rows"


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
    `adapter_not_applied`: the engine answers like the base. `adapter_differs`: it runs some other adapter. What is no
    number on one of the two sides can be compared with nothing and differs.
    """
    unsound = _find_unsound(found)
    if unsound is not None:
        return unsound
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
        return Parity(False, NO_EFFECT, figures)
    if base_error > TOLERANCE_NATS:
        return Parity(False, "base_differs", figures)
    if served_effect < max(_LEAST_NATS, LEAST_EFFECT * effect - TOLERANCE_NATS):
        return Parity(False, "adapter_not_applied", figures)
    if adapter_error > TOLERANCE_NATS:
        return Parity(False, "adapter_differs", figures)
    return Parity(True, "proven", figures)


@dataclass(frozen=True)
class Side:
    """What one served name did on the same rows in their order: nats per answer token, answers, whether they ended."""

    logprobs: Sequence[float]
    answers: Sequence[str]
    stopped: Sequence[bool]


@dataclass(frozen=True)
class Paper:
    """Rows that were asked of base and adapter; `tokens` are the answer tokens of each row."""

    questions: Sequence[str]
    expected: Sequence[str]
    tokens: Sequence[int]
    base: Side
    adapter: Side


@dataclass(frozen=True)
class Examination:
    """The customer's held-out rows, the general probe, and the trainer's own log-probabilities of the first rows."""

    task: Paper
    probe: Paper
    trained_base: Sequence[float]
    trained_adapter: Sequence[float]


@dataclass(frozen=True)
class Rule:
    """One condition of the gate with the value that was found; it passes where `value` is at least `limit`."""

    code: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the condition holds."""
        return self.value >= self.limit


def judge(found: Examination) -> dict[str, Any]:
    """Return the gate as it stands on a run: verdict, rules, parity, scores. Figures only, no row.

    `code` is `passed`, the parity's where that failed, else `gate_regression`.
    """
    unsound = _find_unsound(_read_all(found))
    parity = unsound or judge_parity(_read_logprobs(found))
    scores = _score(found) if unsound is None else {}
    rules = _list_rules(scores) if scores else []
    code = "passed" if all(rule.passed for rule in rules) else "gate_regression"
    return {
        "passed": parity.passed and code == "passed",
        "code": code if parity.passed else parity.code,
        "rules": [asdict(rule) | {"passed": rule.passed} for rule in rules],
        "parity": {"passed": parity.passed, "code": parity.code, **parity.figures},
        "scores": scores,
    }


def is_our_fault(gate: Mapping[str, Any]) -> bool:
    """Return whether the engine runs something else than what was trained; a training without effect is not ours."""
    parity = gate.get("parity") or {"passed": True}
    return not parity["passed"] and parity["code"] != NO_EFFECT


def is_refuted(gate: Mapping[str, Any] | None) -> bool:
    """Return whether a proof was made and failed; an engine that could not be asked refutes nothing."""
    return bool(find_refuted(gate))


def find_refuted(gate: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the proof that failed, on the engine of callers or of evaluations; empty where none did."""
    for name in ("served", "parity"):
        proof: dict[str, Any] = (gate or {}).get(name) or {}
        if not proof.get("passed", True) and proof["code"] != "not_measured":
            return proof
    return {}


def describe_unmeasured(why: Unmeasured, reason: str) -> dict[str, Any]:
    """Return the gate of a run that could not be measured: held until it is, or until a person decides."""
    return {"passed": False, "code": NOT_MEASURED, "why": str(why), "reason": reason}


def _read_logprobs(found: Examination) -> LogProbs:
    count = len(found.trained_base)
    served = (found.task.base.logprobs[:count], found.task.adapter.logprobs[:count])
    return LogProbs(found.trained_base, found.trained_adapter, *served)


def _read_all(found: Examination) -> LogProbs:
    """Every row of task and probe: for looking at each, not for comparing them."""
    served = [
        [*task.logprobs, *probe.logprobs]
        for task, probe in ((found.task.base, found.probe.base), (found.task.adapter, found.probe.adapter))
    ]
    return LogProbs(found.trained_base, found.trained_adapter, *served)


def _find_unsound(found: LogProbs) -> Parity | None:
    """Return the failed proof of values that are no numbers, without figures; None where all are."""
    sides = (
        ("base_differs", (*found.trained_base, *found.served_base)),
        ("adapter_differs", (*found.trained_adapter, *found.served_adapter)),
    )
    for code, values in sides:
        if not all(map(math.isfinite, values)):
            return Parity(False, code, {"tolerance": TOLERANCE_NATS, "rows": len(found.served_base)})
    return None


def _score(found: Examination) -> dict[str, Any]:
    task, probe = found.task, found.probe
    rows = zip(task.expected, task.base.answers, task.adapter.answers, task.questions, strict=True)
    broken = [
        [float(is_broken(answer, wanted)) for answer, wanted in zip(side.answers, task.expected, strict=True)]
        for side in (task.base, task.adapter)
    ]
    recalled = [
        [float(answer.strip() == wanted.strip()) for answer, wanted in zip(side.answers, probe.expected, strict=True)]
        for side in (probe.base, probe.adapter)
    ]
    stops = [[float(stop) for stop in side.stopped] for side in (task.base, task.adapter)]
    return score_cases([Case(*row) for row in rows]) | {
        "loss": _compare_losses(task),
        "stop_rate": compare(stops[0], stops[1]),
        "broken": compare(broken[0], broken[1]),
        "probe": {"n": len(probe.expected), **compare(recalled[0], recalled[1]), "loss": _compare_losses(probe)},
    }


def _compare_losses(paper: Paper) -> dict[str, float]:
    """Mean loss per answer token; the interval is of the mean gain per row."""
    weight = max(1, sum(paper.tokens))
    base, adapter = (
        -sum(value * count for value, count in zip(side.logprobs, paper.tokens, strict=True)) / weight
        for side in (paper.base, paper.adapter)
    )
    low, high = bound_gain(paper.base.logprobs, paper.adapter.logprobs) if paper.tokens else (0.0, 0.0)
    values = {"base": base, "adapter": adapter, "gain_low": low, "gain_high": high}
    return {name: round(value, 6) for name, value in values.items()}


def _list_rules(scores: dict[str, Any]) -> list[Rule]:
    """Losses count as negative values, so that more is better throughout."""
    main = name_main_measure(scores)
    loss, stop, probe = scores["loss"], scores["stop_rate"], scores["probe"]
    return [
        Rule("loss_lower", round(loss["base"] - loss["adapter"], 6), 1e-6),
        Rule(f"{main}_not_worse", scores[main]["gain_low"], -MAX_TASK_LOSS),
        Rule("still_stops", round(stop["adapter"] - stop["base"], 6), -MAX_STOP_LOSS),
        Rule("answers_whole", round(-scores["broken"]["adapter"], 6), -max(MAX_BROKEN, scores["broken"]["base"])),
        _ask_forgetting(probe),
    ]


def _ask_forgetting(probe: dict[str, Any]) -> Rule:
    """Right answers lost; where too many of too few for their number to mean anything, the loss gained."""
    count = Rule("nothing_forgotten", round(probe["adapter"] - probe["base"], 6), -MAX_FORGOTTEN)
    if count.passed or probe["base"] >= LEAST_KNOWN:
        return count
    loss = probe["loss"]
    gained = (loss["base"] - loss["adapter"]) / max(loss["base"], 1e-6)
    return Rule("nothing_forgotten_by_loss", round(gained, 6), -MAX_PROBE_LOSS)


def name_main_measure(scores: dict[str, Any]) -> str:
    """Return the measure that decides: error reduction where it applies, else exact match, F1 where nothing matches."""
    if "error_reduction" in scores:
        return "error_reduction"
    matches = scores["exact_match"]
    return "exact_match" if matches["base"] or matches["adapter"] else "f1"


def _distance(first: Sequence[float], second: Sequence[float]) -> float:
    return fmean(abs(one - other) for one, other in zip(first, second, strict=True))
