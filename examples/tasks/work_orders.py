"""The example task: a free-text fault report becomes the code line that one factory's maintenance system wants.

`python -m examples.tasks.work_orders OUT --format jsonl|csv|xlsx` writes the upload. Its equipment names and sentence
shapes are its own: no base has read them, and the held-out rows share none with the training rows. Training and scoring
are left to `finetune`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.bases.faults import FAULT_KINDS, URGENCIES, FaultKind, Urgency
from examples.tasks import work_order_words as words
from examples.tasks.upload import UploadRow, write_upload

TRAIN_ROWS: Final = 1200
VALID_ROWS: Final = 300
COLUMNS: Final[Mapping[str, str]] = {"故障描述": "prompt", "标准编码": "completion", "split": "split"}
RECIPE: Final[Mapping[str, int | float]] = {
    "epochs": 2,
    "learning_rate": 3e-3,
    "batch_tokens": 512,
    "validations": 4,
    "patience": 0,
}

# This factory's own codes: nothing in a report or in general knowledge gives them away.
_KIND_CODES: Final = {
    "bearing": "K21",
    "hydraulic": "Y04",
    "electrical": "D37",
    "lubrication": "R15",
    "drive": "C62",
    "seal": "M58",
    "cooling": "L83",
    "sensor": "B79",
}
_CREWS: Final = {
    "bearing": "J2",
    "hydraulic": "J5",
    "electrical": "T3",
    "lubrication": "G1",
    "drive": "J2",
    "seal": "J5",
    "cooling": "G1",
    "sensor": "T3",
}
_PRIORITIES: Final = {1: "A", 2: "C", 3: "F"}


@dataclass(frozen=True)
class _Side:
    """Names and sentence shapes of one side of the split."""

    equipment: Sequence[tuple[str, str]]
    shapes_zh: Sequence[str]
    shapes_en: Sequence[str]


_TRAIN = _Side(words.TRAIN_EQUIPMENT, words.TRAIN_SHAPES_ZH, words.TRAIN_SHAPES_EN)
_VALID = _Side(words.VALID_EQUIPMENT, words.VALID_SHAPES_ZH, words.VALID_SHAPES_EN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the upload file and print its path."""
    parser = argparse.ArgumentParser(prog="python -m examples.tasks.work_orders")
    parser.add_argument("out", type=Path, help="folder for the file")
    parser.add_argument("--format", choices=("jsonl", "csv", "xlsx"), default="jsonl")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"work_orders.{options.format}"
    write_upload(path, generate_rows(seed=options.seed), question="故障描述", answer="标准编码")
    print(path)
    return 0


def generate_rows(*, seed: int = 7, train_rows: int = TRAIN_ROWS, valid_rows: int = VALID_ROWS) -> list[UploadRow]:
    """Training rows, then held-out rows marked valid; no question appears twice."""
    rng = random.Random(seed)
    return [
        *_draw_rows(rng, _TRAIN, count=train_rows, split="train"),
        *_draw_rows(rng, _VALID, count=valid_rows, split="valid"),
    ]


def write_code(kind: FaultKind, urgency: Urgency) -> str:
    """The factory's code line, for example `类别=K21; 优先级=A; 班组=J2`."""
    return f"类别={_KIND_CODES[kind.key]}; 优先级={_PRIORITIES[urgency.level]}; 班组={_CREWS[kind.key]}"


def _draw_rows(rng: random.Random, side: _Side, *, count: int, split: str) -> Iterator[UploadRow]:
    seen: set[str] = set()
    while len(seen) < count:
        kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
        question = _write_report(rng, side, kind, urgency)
        if question not in seen:
            seen.add(question)
            yield UploadRow(question=question, answer=write_code(kind, urgency), split=split)


def _write_report(rng: random.Random, side: _Side, kind: FaultKind, urgency: Urgency) -> str:
    chinese, english = rng.choice(side.equipment)
    if rng.random() < 0.5:
        return rng.choice(side.shapes_zh).format(
            unit=chinese,
            n=rng.randint(1, 30),
            symptom=rng.choice(kind.symptoms_zh),
            state=rng.choice(urgency.phrases_zh),
        )
    return rng.choice(side.shapes_en).format(
        unit=english, n=rng.randint(1, 30), symptom=rng.choice(kind.symptoms_en), state=rng.choice(urgency.phrases_en)
    )


if __name__ == "__main__":
    raise SystemExit(main())
