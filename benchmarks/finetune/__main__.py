"""Compares our trainer with TRL and LLaMA-Factory, and the service with the bare trainer; the last line is JSON.

    make bench-finetune        (python -m benchmarks.finetune [--rounds 3] [--threads 2])

Everybody trains the same base on the same rows with the same LoRA, passes and learning rate; the contenders take turns
in every round and each figure is a median. How to read the figures is in ../NOTES.md under "Fine-tuning".
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.finetune.contenders import GRID, OURS, Contender, Task, run_contender
from benchmarks.finetune.resume import measure_resume
from benchmarks.finetune.rivals import LLAMA_FACTORY, TRL, install_rival
from benchmarks.finetune.rows import TRAIN_ROWS, write_rows
from benchmarks.finetune.service import measure_service
from benchmarks.running_market import ROOT, describe_machine
from examples.bases.recipes import DEMO_BASES
from examples.bases.train import train_base
from finetune.token_rows import tokenize_file
from finetune.tokens import load_tokenizer

BASE = "guanmo/demo-bilingual-4m"
LOOK_ROWS = 8
FAR_AHEAD = 10
_RIVALS = {"trl": TRL, "lf": LLAMA_FACTORY}
Runs = dict[str, list[dict[str, float]]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows", type=int, default=TRAIN_ROWS)
    parser.add_argument("--rivals", type=Path, default=ROOT / "var" / "bench", help="folder of their environments")
    parser.add_argument("--base", type=Path, help="folder of a base; without it the demo's base is trained or reused")
    parser.add_argument("--only", choices=("speed", "resume", "service"), help="one part, for tuning")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a killed bench stops what it started
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="gm-ft-") as name:
        folder = Path(name)
        figures = measure(options, prepare(options, folder), folder)
    print(json.dumps({"machine": machine, "threads": options.threads} | figures))
    return 0


def prepare(options: Any, folder: Path) -> Task:
    """Base, rows and the rivals' environments."""
    base = (options.base or _train_base()).absolute()
    train, valid = write_rows(folder, train_rows=options.rows)
    look = folder / "look.jsonl"
    look.write_text("".join(valid.read_text(encoding="utf-8").splitlines(keepends=True)[:LOOK_ROWS]), encoding="utf-8")
    rows = tokenize_file(load_tokenizer(base), train)
    needs_rivals = options.only in (None, "speed")
    return Task(
        base=base,
        train=train,
        valid=valid,
        look=look,
        tokens=sum(rows.lengths),
        threads=options.threads,
        pythons={name: install_rival(rival, options.rivals) for name, rival in _RIVALS.items() if needs_rivals},
    )


def _train_base() -> Path:
    recipe = next(recipe for recipe in DEMO_BASES if recipe.name == BASE)
    return Path(train_base(recipe, ROOT / "var" / "bases").path)


def measure(options: Any, task: Task, folder: Path) -> dict[str, Any]:
    """All parts, or the one asked for."""
    found: dict[str, Any] = {}
    if options.only in (None, "speed"):
        found |= compare(measure_speed(task, folder, rounds=options.rounds))
    if options.only in (None, "resume"):
        found |= measure_resume(task, folder)
    if options.only in (None, "service"):
        found |= measure_service(task, folder, rounds=options.rounds)
    return found


def measure_speed(task: Task, folder: Path, *, rounds: int) -> Runs:
    """One round of every setting finds each rival's best; default, best and ours then take turns.

    A default that ours is far ahead of is not taken again: without instructions for bf16 TRL's takes minutes a run.
    """
    runs: Runs = {contender.name: [] for contender in (OURS, *GRID)}
    for contender in (OURS, *GRID):
        _take(contender, task, folder, runs)
    ours = _median(runs, OURS.name, "tokens_per_s")
    rivals = (*_choose("trl", runs), *_choose("lf", runs))
    chosen = [OURS, *(rival for rival in rivals if FAR_AHEAD * _median(runs, rival.name, "tokens_per_s") > ours)]
    for number in range(1, rounds):
        for contender in chosen if number % 2 == 0 else chosen[::-1]:
            _take(contender, task, folder, runs)
    return runs


def compare(runs: Runs) -> dict[str, Any]:
    """Ratios of the medians; the loss ratio is ours over each rival's lowest, the largest of them counts."""
    ours, loss = _median(runs, "ours", "tokens_per_s"), _median(runs, "ours", "loss")
    figures: dict[str, Any] = {}
    for family in ("trl", "lf"):
        default, best = _choose(family, runs)
        figures[f"vs_{family}_default"] = round(ours / _median(runs, default.name, "tokens_per_s"), 3)
        figures[f"vs_{family}_best"] = round(ours / _median(runs, best.name, "tokens_per_s"), 3)
        figures[f"{family}_best_setting"] = best.name
        for name, rival in (("default", default), ("best", best)):
            processor = _median(runs, "ours", "tokens_per_cpu_s") / _median(runs, rival.name, "tokens_per_cpu_s")
            figures[f"vs_{family}_{name}_by_processor_time"] = round(processor, 3)
    rivals = [name for name, taken in runs.items() if taken and name != "ours"]
    figures["loss_ratio_worst"] = round(max(loss / _median(runs, name, "loss") for name in rivals), 4)
    figures["runs"] = {
        name: {key: round(_median(runs, name, key), 4) for key in ("tokens_per_s", "tokens_per_cpu_s", "loss")}
        for name in (*rivals, "ours")
    }
    return figures


def _choose(family: str, runs: Runs) -> Sequence[Contender]:
    """The rival's default and its fastest other setting."""
    default, *others = [contender for contender in GRID if contender.family == family]
    return [default, max(others, key=lambda contender: _median(runs, contender.name, "tokens_per_s"))]


def _take(contender: Contender, task: Task, folder: Path, runs: Runs) -> None:
    found = run_contender(contender, task, folder / "run")
    runs[contender.name].append(found)
    print(f"{contender.name:18} {json.dumps({name: round(value, 3) for name, value in found.items()})}", flush=True)


def _median(runs: Runs, name: str, key: str) -> float:
    return statistics.median(run[key] for run in runs[name])


if __name__ == "__main__":
    sys.exit(main())
