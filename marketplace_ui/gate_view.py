"""What the publish gate found, as a run's page shows it: rules with their limits, measures with their intervals, cases.

It leaves the figures to `hub.tuning.gate` and the words of states to `journey_words`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from hub.organisations.tables import User
from hub.reports.comma_separated import guard_cell
from hub.tuning.examining import read_cases
from hub.tuning.gate import Unmeasured
from hub.tuning.measures import MEASURES, Measured, list_measured
from hub.tuning.progress import locate_run
from hub.tuning.scoring import Case, report_labels
from hub.tuning.tables import Run
from marketplace_ui.journey_words import word_of
from marketplace_ui.layout import translate

SHOWN_CASES = 12


@dataclass(frozen=True)
class RuleRow:
    """One rule of the gate in words; `told` is what was found and the limit, with their units."""

    title: str
    passed: bool
    told: str


@dataclass(frozen=True)
class Override:
    """Who published past the gate, when, and in whose own words why."""

    person: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class CaseRow:
    """One held-out case before and after; `change` is what became of it: better, worse, right, wrong."""

    case: Mapping[str, str]
    change: str


@dataclass(frozen=True)
class GateView:
    """Everything of the gate, measures with their titles; empty lists before an engine was asked."""

    rules: Sequence[RuleRow]
    measures: Sequence[tuple[str, Measured]]
    labels: Mapping[str, Mapping[str, float]]
    cases: Sequence[CaseRow]
    n: int
    probe_n: int
    unmeasured: str
    override: Override | None


def view_gate(session: Session, run: Run, home: Path, *, mine: bool) -> GateView | None:
    """Return the gate of a run; None before it was decided. Cases are the owner's alone."""
    gate = run.gate or {}
    if "rule" not in gate:
        return None
    scores = gate.get("scores", {})
    cases = read_cases(locate_run(home, run.id)) if mine else []
    return GateView(
        rules=[_show_rule(row) for row in gate.get("rules", [])],
        measures=[(translate(*MEASURES[item.name]), item) for item in list_measured(scores)],
        labels=report_labels([Case(**case) for case in cases]),
        cases=[CaseRow(case, _compare(case)) for case in cases[:SHOWN_CASES]],
        n=scores.get("n", 0),
        probe_n=scores.get("probe", {}).get("n", 0),
        unmeasured=_explain_unmeasured(gate),
        override=_read_override(session, gate.get("override")),
    )


def write_cases(cases: Sequence[Mapping[str, str]]) -> bytes:
    """Return all cases before and after as CSV in UTF-8 with a byte order mark, so that spreadsheets read Chinese."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    heads = (("问题", "question"), ("应答", "expected"), ("基座", "base"), ("新模型", "new model"), ("变化", "change"))
    writer.writerow([translate(*head) for head in heads])
    for case in cases:
        told = [guard_cell(case[name]) for name in ("question", "expected", "base", "adapter")]
        writer.writerow([*told, word_of("case", _compare(case))])
    return ("\ufeff" + out.getvalue()).encode()


def _explain_unmeasured(gate: Mapping[str, Any]) -> str:
    """What kept the engine from being asked; older gates say it in English alone."""
    why, reason = gate.get("why"), str(gate.get("reason", ""))
    return word_of("unmeasured", why) if why in set(Unmeasured) else reason


def _read_override(session: Session, found: Mapping[str, str] | None) -> Override | None:
    if found is None:
        return None
    person = session.get(User, found["by"])
    name = found["by"] if person is None else person.name
    return Override(name, found["reason"], datetime.fromisoformat(found["at"]))


def _compare(case: Mapping[str, str]) -> str:
    before, after = (case[side].strip() == case["expected"].strip() for side in ("base", "adapter"))
    if before == after:
        return "right" if after else "wrong"
    return "better" if after else "worse"


def _show_rule(row: Mapping[str, Any]) -> RuleRow:
    """A rule keeps every value so that more is better; people read a loss or a share as it is, with its unit."""
    code, value, limit = row["code"], row["value"], row["limit"]
    if code == "loss_lower":
        told = translate(f"相差 {-value:+.4f} nat/词元，须小于 0", f"{-value:+.4f} nats a token; must be below 0")
    elif code in ("answers_whole", "nothing_forgotten_by_loss"):
        found, most = (f"{number * -100 + 0:.2f} %" for number in (value, limit))
        told = translate(f"{found}，最多 {most}", f"{found}, at most {most}")
    else:
        found, least = (f"{number * 100 + 0:+.2f}" for number in (value, limit))
        told = translate(f"{found} 个百分点，至少 {least}", f"{found} points, at least {least}")
    return RuleRow(_name_rule(code), row["passed"], told)


def _name_rule(code: str) -> str:
    names = {
        "loss_lower": translate("留出损失低于基座", "Held-out loss is below the base's"),
        "still_stops": translate(
            "结束率不低于基座 1 个百分点以上", "Ends by itself as often as the base, but for a point"
        ),
        "answers_whole": translate(
            "空白或循环的回答不超过 1 %，或不多于基座",
            "Empty or looping answers: at most 1 %, or as many as the base",
        ),
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
