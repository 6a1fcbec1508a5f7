"""A run's log in words: what its trainer reported, line by line, out of numbers and fixed names only.

No text that a trainer or a library wrote gets through, so no row of the data can. It leaves events of the run to the
outbox and the curve to `hub.tuning.progress`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.spec import Event, Progress
from hub.clock import from_us
from hub.tuning.progress import read_tail

MAX_LINES = 60
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SHOWN: Mapping[str, str] = {
    "loss": "loss={:.4f}",
    "valid_loss": "held_out_loss={:.4f}",
    "valid_token_accuracy": "held_out_token_accuracy={:.4f}",
    "grad_norm": "grad_norm={:.3f}",
    "learning_rate": "lr={:.2e}",
    "tokens_per_s": "tokens/s={:.0f}",
    "eta_s": "eta_s={:.0f}",
    "best_step": "best_step={:.0f}",
    "done": "done={:.0f}",
    "of": "of={:.0f}",
}


@dataclass(frozen=True)
class LogLine:
    """One line; `text` is the same in every language."""

    at: datetime
    attempt: int
    text: str


def read_log(out: Path) -> list[LogLine]:
    """Return the newest lines of an attempt, oldest of them first."""
    return [tell_line(line) for line in read_tail(out)[-MAX_LINES:]]


def tell_line(line: Progress) -> LogLine:
    """Return one of the trainer's lines in words."""
    parts = ["train" if line.type is Event.STEP else str(line.type)]
    parts += [f"step={line.step}"] if line.type in (Event.STEP, Event.VALIDATION, Event.RESUMED) else []
    parts += [f"committed_step={line.committed_step}"] if line.type is Event.CHECKPOINT else []
    parts += [name for key in ("stage", "state", "reason_code") if (name := _read_name(line.metrics.get(key)))]
    parts += [text for key, pattern in _SHOWN.items() if (text := _read_number(pattern, line.metrics.get(key)))]
    return LogLine(from_us(line.at), line.attempt, " ".join(parts))


def _read_name(value: Any) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def _read_number(pattern: str, value: Any) -> str:
    return pattern.format(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
