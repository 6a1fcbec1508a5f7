"""Seconds from handing a run to its first optimiser step: bare, as the worker starts it cold, and from a warm trainer.

The marketplace around it is measured by `service`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.finetune.contenders import Task, build_spec, read_progress, start_ours
from benchmarks.running_market import ROOT
from finetune import ask_warm
from finetune.spec import Event, Limits

_BARE = ("-m", "finetune")
_PATIENCE_S = 300.0


def measure_starts(task: Task, folder: Path, *, rounds: int) -> dict[str, float]:
    """Ratios to a bare start; the three ways take turns. `cold` goes through the asker while nobody answers it."""
    socket = folder / "warm.sock"
    asker = (ask_warm.__file__, str(socket))
    taken: dict[str, list[float]] = {"bare": [], "cold": [], "warm": []}
    for number in range(rounds):
        taken["bare"].append(_time_start(task, folder / f"bare-{number}", _BARE))
        taken["cold"].append(_time_start(task, folder / f"cold-{number}", asker))
        with _warm_trainer(task, socket):
            taken["warm"].append(_time_start(task, folder / f"warm-{number}", asker))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "first_step_cold": round(medians["cold"] / medians["bare"], 3),
        "first_step_warm": round(medians["warm"] / medians["bare"], 3),
        **{f"first_step_{name}_s": round(value, 2) for name, value in medians.items()},
    }


def _time_start(task: Task, out: Path, command: tuple[str, ...]) -> float:
    """Seconds from the start of the process to the line of its first step."""
    began_us = time.time_ns() // 1000
    process = start_ours(build_spec(task, limits=Limits(steps=1)), task, out, command)
    process.wait(_PATIENCE_S)
    first = next(line for line in read_progress(out) if line.type is Event.STEP)
    return (first.at - began_us) / 1e6


@contextmanager
def _warm_trainer(task: Task, socket: Path) -> Iterator[None]:
    with (socket.parent / "warm.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.warm", str(socket)], cwd=ROOT, env=task.environment(), stderr=log
        )
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)
