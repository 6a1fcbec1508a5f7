"""Batch order of a whole run, fixed before it starts: rows of like length share a batch of bounded tokens.

Leaves building tensors to train. A run resumed at step n takes batch n; nothing is skipped or replayed.
"""

import hashlib
import json
import random
from collections.abc import Sequence

Batch = tuple[int, ...]
_WINDOW_BATCHES = 32


def order_batches(lengths: Sequence[int], *, epochs: int, batch_tokens: int, seed: int) -> list[Batch]:
    """Batches of row indices for all epochs; rows x longest row of a batch stays within `batch_tokens`."""
    batches: list[Batch] = []
    for epoch in range(epochs):
        rng = random.Random(f"{seed}:{epoch}")  # noqa: S311 - a reproducible order, not a secret
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        batches.extend(_order_epoch(rows, lengths, batch_tokens=batch_tokens, rng=rng))
    return batches


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> list[Batch]:
    """Batches over all rows once, longest first, for work without gradients."""
    return _cut(sorted(range(len(lengths)), key=lambda row: -lengths[row]), lengths, batch_tokens)


def cut_parts(batch: Batch, lengths: Sequence[int], batch_tokens: int) -> list[Batch]:
    """A batch in parts of at most `batch_tokens` padded tokens, one row at least, longest first."""
    return _cut(sorted(batch, key=lambda row: -lengths[row]), lengths, batch_tokens)


def digest_order(batches: Sequence[Batch]) -> str:
    """Lower-case sha256 hex of the order."""
    return hashlib.sha256(json.dumps(batches, separators=(",", ":")).encode()).hexdigest()


def count_tokens(batches: Sequence[Batch], lengths: Sequence[int]) -> int:
    """Trained tokens: the non-pad tokens that are fed through the model over these batches."""
    return sum(lengths[row] for batch in batches for row in batch)


def _order_epoch(rows: list[int], lengths: Sequence[int], *, batch_tokens: int, rng: random.Random) -> list[Batch]:
    """Sort only within windows, so that batches stay random in content."""
    mean = max(1.0, sum(lengths) / max(1, len(lengths)))
    window = max(1, int(_WINDOW_BATCHES * batch_tokens / mean))
    batches: list[Batch] = []
    for start in range(0, len(rows), window):
        part = sorted(rows[start : start + window], key=lambda row: -lengths[row])
        batches.extend(_cut(part, lengths, batch_tokens))
    rng.shuffle(batches)
    return batches


def _cut(rows: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[Batch]:
    batches: list[Batch] = []
    batch: list[int] = []
    for row in rows:  # longest first, so the first row of a batch sets its width
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            batches.append(tuple(batch))
            batch = []
        batch.append(row)
    if batch:
        batches.append(tuple(batch))
    return batches
