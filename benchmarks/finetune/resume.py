"""Kills a training with SIGKILL in its middle, starts it again, and compares its end with an undisturbed one.

What is asked: the same final loss, at most one checkpoint interval repeated, and how soon it trains again.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.finetune.contenders import Process, Task, build_spec, measure_loss, read_progress, start_ours
from benchmarks.finetune.warm import run_warm, warm_trainer
from finetune.spec import Checkpoint, Event, RunSpec

_INTERVAL_S = 1.0
_PATIENCE_S = 300.0


def measure_resume(task: Task, out: Path) -> dict[str, float]:
    """Largest difference of the final loss, seconds until training again (in a fork of the warm trainer that every
    installation keeps, and as a cold process), and repeated steps beyond the last commit."""
    whole, torn, cold = out / "whole", out / "torn", out / "torn-cold"
    _start(task, whole).wait()
    total = max(line.step for line in read_progress(whole))
    process = _start(task, torn)
    _wait_for_step(process, torn, total // 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.copytree(torn, cold)
    with warm_trainer(task, out / "home"):
        warm_s, repeated = _resume(torn, lambda: run_warm(_build(task), task, out / "home", torn))
    cold_s, _ = _resume(cold, lambda: _start(task, cold).wait())
    loss = measure_loss(task, whole / "artifact")
    return {
        "resume_loss_diff": max(abs(loss - measure_loss(task, again / "artifact")) for again in (torn, cold)),
        "resume_s": round(warm_s, 2),
        "resume_cold_s": round(cold_s, 2),
        "resume_repeated_steps": repeated,
        "resume_same_artifact": float(_digest(whole) == _digest(torn) == _digest(cold)),
    }


def _resume(out: Path, run: Callable[[], object]) -> tuple[float, int]:
    """Start a torn run again to its end; seconds until its first new step, and the steps done twice."""
    before = read_progress(out)
    began_us = time.time_ns() // 1000
    run()
    later = read_progress(out)[len(before) :]
    resumed = next(line for line in later if line.type is Event.RESUMED)
    first = next(line for line in later if line.type is Event.STEP)
    return (first.at - began_us) / 1e6, max(line.step for line in before) - resumed.step


def _start(task: Task, out: Path) -> Process:
    return start_ours(_build(task), task, out)


def _build(task: Task) -> RunSpec:
    return build_spec(task, checkpoint=Checkpoint(interval_s=_INTERVAL_S))


def _wait_for_step(process: Process, out: Path, step: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if any(line.step >= step for line in read_progress(out)):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{out} did not reach step {step}; see its log")


def _digest(out: Path) -> str:
    return str(json.loads((out / "result.json").read_text())["artifact_digest"])
