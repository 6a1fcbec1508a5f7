"""The same tests on the twin and on the real PEFT trainer: states, events, checkpoints, stops within a step, resuming.

What the hub's tests and the random disturbances show with the twin holds for the real one as far as these bodies go.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.spec import Base, Checkpoint, Data, Event, ExitCode, Fault, Kind, Progress, Result, RunSpec, State, Value
from tests.finetune.conftest import TRAINER, Start, StartedTrainer, open_warm, read_result, starting
from tests.hub.runs import twin_trainer

LOOKS = 3


@pytest.fixture(scope="module", params=["twin", pytest.param("real", marks=pytest.mark.engine)])
def trainer(request: pytest.FixtureRequest) -> str:
    """Which trainer the test is about."""
    return str(request.param)


@pytest.fixture(scope="module")
def begin(trainer: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a trainer on a specification, the real one warm; whatever still runs at the end is killed."""
    folder = tmp_path_factory.mktemp("specs")
    if trainer == "real":
        starts = starting(folder, TRAINER, open_warm(request.getfixturevalue("warm_trainer")))
    else:
        starts = starting(folder, (sys.executable, twin_trainer.__file__))
    with starts as begin_run:
        yield begin_run


@pytest.fixture(scope="module")
def spec(trainer: str, chats: Data, request: pytest.FixtureRequest) -> RunSpec:
    """A short run that commits after every step and looks three times; the twin reads no base."""
    base = Base(str(request.getfixturevalue("base"))) if trainer == "real" else Base("none")
    made = RunSpec(
        kind=Kind.TRAIN,
        run_id="run_1",
        base=base,
        data=chats,
        recipe={"epochs": Value(3), "validations": Value(LOOKS), "patience": Value(0), "rank": Value(8)},
        checkpoint=Checkpoint(interval_s=0.0, keep=2),
    )
    return replace(made, attempt=1, fence=1)


@pytest.fixture(scope="module")
def whole(begin: Start, spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "1"
    assert begin(spec, out).wait() == ExitCode.DONE
    return out


def read_lines(out: Path) -> list[Progress]:
    path = out / "progress.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [Progress.from_json(line) for line in lines]


def wait_for_commit(process: StartedTrainer, out: Path, step: int) -> None:
    deadline_s = time.monotonic() + 180
    while not any(line.committed_step >= step for line in read_lines(out)):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def make_long(spec: RunSpec) -> RunSpec:
    return replace(spec, recipe={**spec.recipe, "epochs": Value(50), "validations": Value(1)})


def test_events_come_in_order_and_count_up(whole: Path, spec: RunSpec) -> None:
    lines, result = read_lines(whole), read_result(whole)
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert {(line.attempt, line.fence) for line in lines} == {(spec.attempt, spec.fence)}
    assert (lines[0].type, lines[-1].type) == (Event.STARTED, Event.FINISHED)
    assert lines[-1].metrics == {"state": "succeeded", "reason_code": "done"}
    for name in ("at", "step", "tokens", "committed_step", "device_ms"):
        values = [getattr(line, name) for line in lines]
        assert values == sorted(values), name
    steps = [line for line in lines if line.type is Event.STEP]
    assert all({"loss", "tokens_per_s", "eta_s"} <= set(line.metrics) for line in steps)
    assert (steps[-1].step, steps[-1].tokens) == (result.step, result.tokens)


def test_the_result_names_the_run_and_its_artifact(whole: Path, spec: RunSpec) -> None:
    result = read_result(whole)
    assert (result.run_id, result.attempt, result.fence, result.kind) == ("run_1", 1, 1, Kind.TRAIN)
    assert (result.state, result.fault) == (State.SUCCEEDED, Fault.NONE)
    sums = (whole / "artifact" / "SHA256SUMS").read_bytes()
    assert result.artifact_digest == hashlib.sha256(sums).hexdigest()
    assert {"base", "adapter"} <= set(result.metrics)
    assert 0 < result.billable_device_ms <= result.elapsed_device_ms
    assert {"digests", "code_digest", "recipe", "fixed"} <= set(json.loads((whole / "manifest.json").read_text()))


def test_every_look_leaves_a_checkpoint_that_an_engine_can_load(whole: Path) -> None:
    looks = [line for line in read_lines(whole) if line.type is Event.VALIDATION]
    assert looks[0].step == 0
    assert len(looks) == LOOKS + 1
    shares = [float(str(line.metrics["valid_token_accuracy"])) for line in looks]
    assert 0 <= shares[0] < shares[-1] <= 1
    assert looks[-1].metrics["valid_loss"] < looks[0].metrics["valid_loss"]  # type: ignore[operator]
    for line in looks[1:]:
        folder = whole / "evaluated" / f"step-{line.step:08d}"
        names = {path.name for path in folder.iterdir()}
        assert names == {"SHA256SUMS", "adapter_config.json", "adapter_model.safetensors"}
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_stops_are_coded_metered_and_take_a_step_at_most(begin: Start, spec: RunSpec, tmp_path: Path) -> None:
    long = make_long(spec)
    names = ("preempted", "cancelled", "paused")
    processes = {name: begin(long, tmp_path / name) for name in names}
    asked_us: dict[str, int] = {}
    for name, process in processes.items():
        wait_for_commit(process, tmp_path / name, 2)
        if name == "preempted":
            process.signal("term")
        else:
            (tmp_path / name / {"cancelled": "cancel", "paused": "pause"}[name]).touch()
        asked_us[name] = time.time_ns() // 1000
    codes = {name: process.wait() for name, process in processes.items()}
    assert codes == {"preempted": 75, "cancelled": 76, "paused": 75}
    results = {name: read_result(tmp_path / name) for name in names}
    ends = {name: (found.state, found.fault, found.reason_code) for name, found in results.items()}
    assert ends == {
        "preempted": (State.PREEMPTED, Fault.PROVIDER, "preempted"),
        "cancelled": (State.CANCELLED, Fault.USER, "cancelled"),
        "paused": (State.PREEMPTED, Fault.NONE, "paused"),
    }
    for name, result in results.items():
        lines = read_lines(tmp_path / name)
        before = max(line.step for line in lines if line.at <= asked_us[name])
        assert 2 <= result.step <= before + 1, name
        assert (lines[-1].type, lines[-1].committed_step) == (Event.FINISHED, result.step)
        assert result.tokens > 0
        assert result.billable_device_ms > 0


def test_a_later_attempt_goes_on_from_the_last_commit(begin: Start, spec: RunSpec, whole: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    # A step of the twin takes as long as its recipe says; the real one is slow enough by itself.
    slow = replace(spec, recipe={**spec.recipe, "warmup_ratio": Value(0.3)})
    process = begin(slow, first)
    wait_for_commit(process, first, 1)
    process.signal("term")
    process.wait()
    committed = max(line.committed_step for line in read_lines(first))
    resumed_spec = replace(slow, attempt=2, fence=2, resume_from=str(first))
    assert begin(resumed_spec, second).wait() == ExitCode.DONE
    lines, done, undisturbed = read_lines(second), read_result(second), read_result(whole)
    resumed = next(line for line in lines if line.type is Event.RESUMED)
    assert resumed.step == committed
    assert min(line.step for line in lines if line.type is Event.STEP) == committed + 1
    assert (done.step, done.tokens) == (undisturbed.step, undisturbed.tokens)
    assert (done.attempt, done.fence) == (2, 2)
    assert done.state is State.SUCCEEDED


def test_a_plan_promises_the_tokens_that_are_trained(begin: Start, spec: RunSpec, whole: Path, tmp_path: Path) -> None:
    assert begin(replace(spec, kind=Kind.PLAN), tmp_path / "plan").wait() == ExitCode.DONE
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    planned: Result = read_result(tmp_path / "plan")
    done = read_result(whole)
    assert plan["tokens"] == planned.tokens == done.tokens
    assert plan["steps"] == done.step
