"""A warm trainer of its own for a measurement, as every installation keeps one beside its worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.finetune.contenders import Task
from benchmarks.running_market import ROOT
from finetune.spec import RunSpec
from hub.jobs.trainer import PROGRAM, locate_warm_trainer, open_launch
from serving.launch import LaunchSpec, ProcessState

_PATIENCE_S = 600.0


@contextmanager
def warm_trainer(task: Task, home: Path) -> Iterator[None]:
    """A warm trainer for the workers with this home."""
    path = locate_warm_trainer(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "warm.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.warm", str(path)], cwd=ROOT, env=task.environment(), stderr=log
        )
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()
        path.unlink(missing_ok=True)


def run_warm(spec: RunSpec, task: Task, home: Path, out: Path) -> None:
    """Run a specification in `out` to its end, started as a worker with this home does."""
    launch, path = open_launch(home), out / "spec.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    argv = (*PROGRAM, str(path), str(out))
    handle = launch.start(LaunchSpec(out.name, argv, task.environment(), cwd=ROOT, log_path=out / "log"))
    while launch.poll(handle).state in (ProcessState.STARTING, ProcessState.RUNNING):
        time.sleep(0.01)
