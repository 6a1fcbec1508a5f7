"""Random kills, cancels, pauses and repeated submits: nothing is charged twice, left running, lost or stuck.

FAULTS_LONG=1 (`make faults-finetune`) runs 1,000 with the twin trainer and 40 with PEFT.
"""

import os
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.database import Sessions
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from tests.faults_finetune.ground import WARM_TRAINER, WARM_TWIN, run_many
from tests.faults_finetune.tally import Tally
from tests.hub.runs.scene import Scene

LONG = os.environ.get("FAULTS_LONG") == "1"
COUNT = int(os.environ.get("FAULTS_RUNS", "0"))
SEED = int(os.environ.get("FAULTS_SEED", "20261129"))


def announce(name: str, tally: Tally, started_s: float) -> None:
    """Print the tally, and fail on whatever must not be."""
    sys.stdout.write(f"\nfaults-finetune {name} {time.monotonic() - started_s:.0f} s {tally.as_line()}\n")
    found = (tally.double_charges, tally.orphans, tally.lost_rows, tally.stuck)
    assert found == (0, 0, 0, 0), tally.problems


@pytest.mark.timeout(7200)
def test_random_runs_with_the_twin(sessions: Sessions, tmp_path: Path) -> None:
    started_s = time.monotonic()
    _, tally = run_many(
        sessions,
        tmp_path / "home",
        count=COUNT or (1000 if LONG else 10),
        at_once=10,
        recipe={"epochs": 6, "warmup_ratio": 0.04},
        span_s=1.5,
        reach_s=0.4,
        seed=SEED,
        trainer=WARM_TWIN,
    )
    announce("twin", tally, started_s)
    assert tally.hits > 0
    assert not LONG or len(tally.acts) == 9


@pytest.mark.engine
@pytest.mark.timeout(7200)
def test_random_runs_with_peft_all_end_in_the_same_weights(sessions: Sessions, tmp_path: Path, tiny_base: Path) -> None:
    """Same data, recipe and seed: whatever happened on the way, the delivered adapters are equal to the bit.

    Three runs are too few to count on one that nobody cancels: only the long form cancels.
    """
    started_s = time.monotonic()
    scene, tally = run_many(
        sessions,
        tmp_path / "home",
        count=40 if LONG else 3,
        at_once=3,
        recipe={"epochs": 12, "validations": 2, "learning_rate": 0.004, "rank": 8, "evaluate_rows": 20, "patience": 0},
        span_s=3.0,
        reach_s=4.0,
        seed=SEED,
        trainer=WARM_TRAINER,
        may_cancel=LONG,
        base_folder=tiny_base,
    )
    announce("peft", tally, started_s)
    assert_same_weights(scene)


def assert_same_weights(scene: Scene) -> None:
    with scene.sessions.read() as session:
        runs = session.scalars(select(Run).where(Run.state.in_((RunState.SUCCEEDED, RunState.HELD)))).all()
    assert runs
    assert len({run.artifact_digest for run in runs}) == 1
