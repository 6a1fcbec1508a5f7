"""What the publish gate found, as a run's page shows it: rules with their limits, measures with their intervals, cases.

It leaves the figures to `hub.tuning.gate` and the words of states to `journey_words`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.tuning.examining import read_cases
from hub.tuning.measures import MEASURES, Measured, list_measured
from hub.tuning.progress import locate_run
from hub.tuning.scoring import Case, report_labels
from hub.tuning.tables import Run
from marketplace_ui.layout import translate

SHOWN_CASES = 12


@dataclass(frozen=True)
class RuleRow:
    """One rule of the gate in words."""

    title: str
    passed: bool
    value: float
    limit: float


@dataclass(frozen=True)
class GateView:
    """Everything of the gate, measures with their titles; empty lists before an engine was asked."""

    rules: Sequence[RuleRow]
    measures: Sequence[tuple[str, Measured]]
    labels: Mapping[str, Mapping[str, float]]
    cases: Sequence[Mapping[str, str]]
    n: int
    probe_n: int


def view_gate(run: Run, home: Path, *, mine: bool) -> GateView | None:
    """Return the gate of a run; None before it was decided. Cases are the owner's alone."""
    gate = run.gate or {}
    if "rule" not in gate:
        return None
    scores = gate.get("scores", {})
    cases = read_cases(locate_run(home, run.id)) if mine else []
    return GateView(
        rules=[
            RuleRow(_name_rule(row["code"]), row["passed"], row["value"], row["limit"]) for row in gate.get("rules", [])
        ],
        measures=[(translate(*MEASURES[item.name]), item) for item in list_measured(scores)],
        labels=report_labels([Case(**case) for case in cases]),
        cases=cases[:SHOWN_CASES],
        n=scores.get("n", 0),
        probe_n=scores.get("probe", {}).get("n", 0),
    )


def _name_rule(code: str) -> str:
    names = {
        "loss_lower": translate("留出损失低于基座", "Held-out loss is below the base's"),
        "still_stops": translate(
            "结束率不低于基座 1 个百分点以上", "Ends by itself as often as the base, but for a point"
        ),
        "answers_whole": translate("空白或循环的回答不超过 1 %", "At most 1 % empty or looping answers"),
        "nothing_forgotten": translate("通用能力下降不超过 3 个百分点", "General questions lose at most 3 points"),
        "nothing_forgotten_by_loss": translate(
            "通用能力损失上升不超过 5 %（基座本身答对不足两成）",
            "Loss on general questions grows by at most 5 % (the base itself answers less than a fifth)",
        ),
    }
    if code in names:
        return names[code]
    title = translate(*MEASURES[code.removesuffix("_not_worse")])
    return title + translate("不差于基座（95 % 下界，容 1 点）", " is no worse than the base's (95 % bound, one point)")
