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
from finetune import ask_warm

_PATIENCE_S = 600.0


@contextmanager
def warm_trainer(task: Task, path: Path) -> Iterator[tuple[str, ...]]:
    """A warm trainer that listens at `path`; yields Python's arguments that ask it for a run."""
    with (path.parent / "warm.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.warm", str(path)], cwd=ROOT, env=task.environment(), stderr=log
        )
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        yield "-P", str(Path(ask_warm.__file__)), str(path)
    finally:
        process.terminate()
        process.wait()
        path.unlink(missing_ok=True)
