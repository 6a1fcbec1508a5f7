"""Seconds from handing a run to its first optimiser step: a bare start, the service's cold one, and a warm one.

A warm start is forked from a process that has the libraries imported (`finetune.warm`).
"""
from __future__ import annotations

from pathlib import Path

from benchmarks.finetune.contenders import Task


def measure_starts(task: Task, folder: Path, *, rounds: int) -> dict[str, float]:
    return {}
