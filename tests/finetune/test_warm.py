"""The warm trainer: a fork runs a specification as a cold start does, shut in, under its own name and killed by it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.spec import Data, ExitCode, Kind, Limits, RunSpec, SourceFormat, State, Value
from tests.finetune.conftest import TRAINER, Start, StartedTrainer, open_warm, read_result, starting
from tests.finetune.seeded_errors import chat


@pytest.mark.engine
def test_a_fork_trains_shut_in_and_ends_as_it_is_told(start: Start, train_spec: RunSpec, tmp_path: Path) -> None:
    done, killed, stopped = tmp_path / "done", tmp_path / "killed", tmp_path / "stopped"
    trainer = start(replace(train_spec, limits=Limits(steps=2)), done)
    assert is_forked(trainer)
    assert trainer.wait() == ExitCode.DONE
    assert read_result(done).state is State.SUCCEEDED
    first = json.loads((done / "progress.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["metrics"]["enforced"] == ["file_size", "files", "network", "signals", "calls"]
    long = replace(train_spec, recipe={"epochs": Value(50), "validations": Value(1)})
    trainer = start_for_a_while(start, long, killed)
    trainer.signal("kill")
    assert trainer.wait() == -9
    stopped_at = count_lines(killed)
    time.sleep(1.0)
    assert count_lines(killed) == stopped_at
    assert not (killed / "result.json").exists()
    trainer = start_for_a_while(start, long, stopped)
    trainer.signal("term")
    assert trainer.wait() == ExitCode.PREEMPTED


def test_without_a_warm_trainer_a_run_starts_cold(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(chat(f"pump {n} at {n * 7}", f"seal {n * 3}")) + "\n" for n in range(40)))
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(str(source), SourceFormat.JSONL))
    with starting(tmp_path / "specs", TRAINER, open_warm(tmp_path / "none")) as start_run:
        trainer = start_run(spec, tmp_path / "out")
        assert not is_forked(trainer)
        assert trainer.wait() == ExitCode.DONE
    assert read_result(tmp_path / "out").state is State.SUCCEEDED


def is_forked(trainer: StartedTrainer) -> bool:
    """Whether it still has the command line of the warm trainer, as a fork has."""
    return b"finetune.warm" in Path(f"/proc/{trainer.handle.pid}/cmdline").read_bytes()


def start_for_a_while(start: Start, spec: RunSpec, out: Path) -> StartedTrainer:
    """Start a run and come back in its middle."""
    trainer = start(spec, out)
    while count_lines(out) < 4:
        assert trainer.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.05)
    return trainer


def count_lines(out: Path) -> int:
    path = out / "progress.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
