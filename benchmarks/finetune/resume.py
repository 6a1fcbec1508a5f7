"""Kills a training with SIGKILL in its middle, starts it again, and compares its end with an undisturbed one.

What is asked: the same final loss, at most one checkpoint interval repeated, and how soon it trains again.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from benchmarks.finetune.contenders import Process, Task, build_spec, measure_loss, read_progress, start_ours
from finetune.spec import Checkpoint, Event

_INTERVAL_S = 1.0
_PATIENCE_S = 300.0


def measure_resume(task: Task, out: Path) -> dict[str, float]:
    """Final loss difference, seconds until training again, and repeated steps beyond the last commit."""
    whole = out / "whole"
    _start(task, whole).wait()
    total = max(line.step for line in read_progress(whole))
    torn = out / "torn"
    process = _start(task, torn)
    _wait_for_step(process, torn, total // 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = max(line.step for line in read_progress(torn))
    seen = len(read_progress(torn))
    began_us = time.time_ns() // 1000
    _start(task, torn).wait()
    later = read_progress(torn)[seen:]
    resumed = next(line for line in later if line.type is Event.RESUMED)
    first = next(line for line in later if line.type is Event.STEP)
    return {
        "loss_diff": abs(measure_loss(task, whole / "artifact") - measure_loss(task, torn / "artifact")),
        "resume_s": (first.at - began_us) / 1e6,
        "repeated_steps": reached - resumed.step,
        "same_artifact": float(_digest(whole) == _digest(torn)),
    }


def _start(task: Task, out: Path) -> Process:
    return start_ours(build_spec(task, checkpoint=Checkpoint(interval_s=_INTERVAL_S)), task, out)


def _wait_for_step(process: Process, out: Path, step: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if any(line.step >= step for line in read_progress(out)):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{out} did not reach step {step}; see its log")


def _digest(out: Path) -> str:
    return str(json.loads((out / "result.json").read_text())["artifact_digest"])
