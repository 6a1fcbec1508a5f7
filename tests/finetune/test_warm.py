"""The warm trainer: a fork runs a specification as a cold start does, and dies with the process that asked for it."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import ask_warm
from finetune.spec import ExitCode, Limits, RunSpec, State, Value
from tests.finetune.conftest import ENVIRONMENT, ROOT, read_result


@pytest.mark.engine
def test_a_fork_trains_and_dies_with_its_asker(warm_trainer: Path, train_spec: RunSpec, tmp_path: Path) -> None:
    done, killed = tmp_path / "done", tmp_path / "killed"
    assert _ask(warm_trainer, replace(train_spec, limits=Limits(steps=2)), done).wait() == ExitCode.DONE
    assert read_result(done).state is State.SUCCEEDED
    asker = _ask(warm_trainer, replace(train_spec, recipe={"epochs": Value(50), "validations": Value(1)}), killed)
    while _count_lines(killed) < 4 and asker.poll() is None:
        time.sleep(0.05)
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    time.sleep(0.3)
    stopped_at = _count_lines(killed)
    time.sleep(1.0)
    assert _count_lines(killed) == stopped_at
    assert not (killed / "result.json").exists()
    stopped = _ask(warm_trainer, replace(train_spec, recipe={"epochs": Value(50)}), tmp_path / "stopped")
    while _count_lines(tmp_path / "stopped") < 4 and stopped.poll() is None:
        time.sleep(0.05)
    stopped.terminate()
    assert stopped.wait() == ExitCode.PREEMPTED


def test_without_a_warm_trainer_the_asker_starts_cold(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{}")
    command = [sys.executable, ask_warm.__file__, str(tmp_path / "none"), str(tmp_path / "spec.json"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "missing_field" in done.stderr


def _ask(socket_path: Path, spec: RunSpec, out: Path) -> "subprocess.Popen[bytes]":
    out.mkdir()
    (out / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    command = [sys.executable, ask_warm.__file__, str(socket_path), str(out / "spec.json"), str(out)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)


def _count_lines(out: Path) -> int:
    path = out / "progress.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
