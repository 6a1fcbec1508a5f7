"""Runs one contender once on the same rows: ours by `python -m finetune`, a rival inside its own environment.

Useful tokens are counted here, by our tokenizer and without padding; nobody's own counter is believed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.running_market import ROOT
from finetune.spec import Base, Checkpoint, Data, Event, Kind, Progress, RunSpec, Value

RANK, ALPHA, EPOCHS, LEARNING_RATE, WARMUP_STEPS, SEED = 16, 32, 2, 3e-3, 5, 42
RECIPE: Mapping[str, int | float] = {
    "rank": RANK,
    "alpha": ALPHA,
    "epochs": EPOCHS,
    "learning_rate": LEARNING_RATE,
    "validations": 1,
    "patience": 0,
    "evaluate_rows": 20,
    "max_new_tokens": 1,
}
_SCRIPTS = {"trl": "in_trl.py", "lf": "in_llamafactory.py"}


Process = subprocess.Popen[bytes]


class ContenderError(Exception):
    """A contender ended with an error; the message carries the end of its log."""


@dataclass(frozen=True)
class Contender:
    """`family` is ours, trl or lf; `settings` are the family's own names."""

    name: str
    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """Wall and processor seconds of the loop, and the folder of the adapter."""

    loop_s: float
    cpu_s: float
    adapter: Path


@dataclass(frozen=True)
class Task:
    """What all contenders work on: the same base, rows, threads and number of passes."""

    base: Path
    train: Path
    valid: Path
    tokens: int
    threads: int
    pythons: Mapping[str, Path]

    def environment(self) -> dict[str, str]:
        """The same for every contender."""
        threads = str(self.threads)
        passed = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        return passed | {
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DISABLE_VERSION_CHECK": "1",
        }


GRID: Sequence[Contender] = (
    Contender("trl_default", "trl"),
    Contender("trl_grouped", "trl", {"train_sampling_strategy": "group_by_length", "gradient_checkpointing": False}),
    Contender(
        "trl_grouped_fp32",
        "trl",
        {"train_sampling_strategy": "group_by_length", "gradient_checkpointing": False, "bf16": False},
    ),
    Contender(
        "trl_packed",
        "trl",
        {"packing": True, "gradient_checkpointing": False, "bf16": False, "per_device_train_batch_size": 1},
    ),
    Contender("lf_default", "lf", {"per_device_train_batch_size": 8}),
    Contender(
        "lf_grouped",
        "lf",
        {
            "per_device_train_batch_size": 8,
            "disable_gradient_checkpointing": True,
            "train_sampling_strategy": "group_by_length",
        },
    ),
    Contender(
        "lf_grouped_bf16",
        "lf",
        {
            "per_device_train_batch_size": 8,
            "disable_gradient_checkpointing": True,
            "train_sampling_strategy": "group_by_length",
            "bf16": True,
        },
    ),
    Contender(
        "lf_packed",
        "lf",
        {"per_device_train_batch_size": 1, "disable_gradient_checkpointing": True, "neat_packing": True},
    ),
)
OURS = Contender("ours", "ours")


def run_contender(contender: Contender, task: Task, out: Path) -> dict[str, float]:
    """Fine-tune once; return useful tokens per second of the loop and the adapter's held-out loss.

    Raises:
        ContenderError: it ended with another exit than 0.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    run = _run_ours(task, out) if contender.family == "ours" else _run_rival(contender, task, out)
    tokens = EPOCHS * task.tokens
    return {
        "tokens_per_s": tokens / run.loop_s,
        "tokens_per_cpu_s": tokens / run.cpu_s,
        "loss": measure_loss(task, run.adapter),
    }


def build_spec(task: Task, **changes: Any) -> RunSpec:
    """Our run with the rivals' values; what they cannot set is left to the recipe."""
    fields: dict[str, Any] = {
        "kind": Kind.TRAIN,
        "run_id": "bench",
        "base": Base(str(task.base)),
        "data": Data(train=str(task.train), valid=str(task.valid)),
        "recipe": {name: Value(value) for name, value in RECIPE.items()},
        "seed": SEED,
        "checkpoint": Checkpoint(interval_s=15.0),
    }
    return RunSpec(**(fields | changes))


def read_progress(out: Path) -> list[Progress]:
    """Whole lines of a run's progress so far."""
    path = out / "progress.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [Progress.from_json(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def measure_loss(task: Task, adapter: Path) -> float:
    """Held-out loss of base and adapter, in fp32 and in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.finetune.held_out", str(task.base), str(adapter), str(task.valid)]
    return float(_run(argv, task, adapter.parent / "held_out.log"))


def start_ours(spec: RunSpec, task: Task, out: Path) -> Process:
    """Start our trainer on a specification in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "spec.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    with (out / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "finetune", str(path), str(out)],
            cwd=ROOT,
            env=task.environment(),
            stdout=log,
            stderr=log,
        )


def find_loop_s(lines: Sequence[Progress]) -> float:
    """Seconds from the end of the look before the first step to the last step's line."""
    first = next(line.at for line in lines if line.type is Event.VALIDATION)
    last = max(line.at for line in lines if line.type is Event.STEP)
    return (last - first) / 1e6


def _run_ours(task: Task, out: Path) -> _Run:
    """From the end of the look before the first step to the last step's line, one look and all lines included."""
    process = start_ours(build_spec(task), task, out)
    watched = psutil.Process(process.pid)
    began_cpu_s = ended_cpu_s = 0.0
    while process.poll() is None:
        kinds = {line.type for line in read_progress(out)}
        cpu_s = sum(watched.cpu_times()[:2])
        if Event.VALIDATION not in kinds:
            began_cpu_s = cpu_s
        if Event.EVALUATED not in kinds and not _is_scoring(out):
            ended_cpu_s = cpu_s
        time.sleep(0.02)
    if process.returncode != 0:
        raise ContenderError(f"ours ended with exit {process.returncode}: {(out / 'log').read_text()[-1500:]}")
    return _Run(find_loop_s(read_progress(out)), ended_cpu_s - began_cpu_s, out / "artifact")


def _is_scoring(out: Path) -> bool:
    return any(str(line.metrics.get("stage", "")).startswith("evaluating") for line in read_progress(out))


def _run_rival(contender: Contender, task: Task, out: Path) -> _Run:
    asked = {
        "base": str(task.base),
        "train": str(task.train),
        "out": str(out),
        "threads": task.threads,
        "rank": RANK,
        "alpha": ALPHA,
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP_STEPS,
        "seed": SEED,
        "settings": dict(contender.settings),
    }
    script = Path(__file__).with_name(_SCRIPTS[contender.family])
    _run([str(task.pythons[contender.family]), str(script), json.dumps(asked)], task, out / "log")
    found = json.loads((out / "run.json").read_text())
    return _Run(float(found["loop_s"]), float(found["cpu_s"]), out)


def _run(argv: Sequence[str], task: Task, log: Path) -> str:
    with log.open("w") as stream:
        done = subprocess.run(
            argv, cwd=ROOT, env=task.environment(), stdout=subprocess.PIPE, stderr=stream, text=True, check=False
        )
    if done.returncode != 0:
        raise ContenderError(f"{argv[:3]} ended with exit {done.returncode}: {log.read_text()[-1500:]}")
    return done.stdout
