"""How far a run is now, for its page: stage, bar, losses, speed, time left, cost so far.

It leaves the curve and its healthy band to `hub.tuning` and what is shown where to the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Event as LineKind
from finetune.spec import Progress
from hub.tuning.bodies import present_progress
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from marketplace_ui.journey_words import FAMILIES


@dataclass(frozen=True)
class Live:
    """How far a run is now. `done` of `whole` is the bar of the stage; figures are None before the first step."""

    stage: str
    done: int
    whole: int
    step: int
    steps: int
    loss: float | None
    tokens_per_s: float | None
    eta_s: float | None
    cost_fen: int | None


def read_live(session: Session, run: Run, lines: Sequence[Progress]) -> Live:
    """Return what the newest lines of a run's attempt say."""
    newest = lines[-1] if lines else None
    steps = [line for line in lines if line.type is LineKind.STEP]
    stages = [line for line in lines if line.type is LineKind.STAGE]
    figures: Mapping[str, Any] = steps[-1].metrics if steps else {}
    stage: Mapping[str, Any] = stages[-1].metrics if stages else {}
    name = str(stage.get("stage", ""))
    name = name if name in FAMILIES["stage"] else ""
    planned = int((run.plan or {}).get("tokens", 0)) or 1
    done, whole = (newest.tokens if newest else 0), planned
    if name.startswith("evaluating"):
        done, whole = int(_read_number(stage, "done") or 0), int(_read_number(stage, "of") or 1)
    shown = present_progress(session, run, newest)
    return Live(
        stage=name,
        done=min(done, whole),
        whole=whole,
        step=newest.step if newest else 0,
        steps=int((run.plan or {}).get("steps", 0)),
        loss=_read_number(figures, "loss"),
        tokens_per_s=_read_number(figures, "tokens_per_s"),
        eta_s=_read_number(figures, "eta_s") if run.state is RunState.RUNNING else None,
        cost_fen=shown["cost_fen"] if shown else None,
    )


def _read_number(figures: Mapping[str, Any], name: str) -> float | None:
    """What a trainer wrote is not trusted to be a number."""
    value = figures.get(name)
    return value if isinstance(value, int | float) else None
