"""Rows for the speed comparison: shift reports of one to a dozen fault reports, answered by the plant's own codes.

Most rows are short and a few are long, as people write them. Batching is left to the contenders.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from examples.tasks.work_orders import generate_rows

TRAIN_ROWS = 320
VALID_ROWS = 64
_MORE = 0.55
_MOST_REPORTS = 12


def write_rows(folder: Path, *, train_rows: int = TRAIN_ROWS, seed: int = 11) -> tuple[Path, Path]:
    """Write train.jsonl and valid.jsonl as chats; no report is in both."""
    rng = random.Random(seed)
    reports = generate_rows(seed=seed, train_rows=1400, valid_rows=400)
    paths = []
    for split, count in (("train", train_rows), ("valid", VALID_ROWS)):
        pool = [(row.question, row.answer) for row in reports if row.split == split]
        path = folder / f"{split}.jsonl"
        path.write_text("".join(f"{line}\n" for line in _write_lines(rng, pool, count)), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def _write_lines(rng: random.Random, pool: Sequence[tuple[str, str]], count: int) -> Iterator[str]:
    for _ in range(count):
        parts = 1
        while parts < _MOST_REPORTS and rng.random() < _MORE:
            parts += 1
        chosen = rng.sample(pool, parts)
        messages = [
            {"role": "user", "content": "\n".join(question for question, _ in chosen)},
            {"role": "assistant", "content": "\n".join(answer for _, answer in chosen)},
        ]
        yield json.dumps({"messages": messages}, ensure_ascii=False)
