"""Batch order of a whole run, fixed before it starts: rows of like length share a batch of bounded tokens.

Leaves building tensors to train. A run resumed at step n takes batch n; nothing is skipped or replayed.
"""

import hashlib
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

Batch = tuple[int, ...]
_WINDOW_BATCHES = 32


class BatchOrder(Sequence[Batch]):
    """Batches in their order, packed: 4 bytes a row and 8 a batch. Tuples of a million rows take ten times the room."""

    def __init__(self, batches: Iterable[Batch] = ()) -> None:
        self._rows, self._ends = array("I"), array("Q", [0])
        self.extend(batches)

    def extend(self, batches: Iterable[Batch]) -> None:
        """Append batches."""
        for batch in batches:
            self._rows.extend(batch)
            self._ends.append(len(self._rows))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        """One batch; of a slice a list of batches."""
        if isinstance(index, slice):
            return [self._unpack(at) for at in range(*index.indices(len(self)))]
        return self._unpack(range(len(self))[index])

    def cut(self, count: int) -> None:
        """Leave out all but the first `count` batches."""
        del self._ends[count + 1 :]
        del self._rows[self._ends[-1] :]

    def _unpack(self, at: int) -> Batch:
        return tuple(self._rows[self._ends[at] : self._ends[at + 1]])


def order_batches(lengths: Sequence[int], *, epochs: int, batch_tokens: int, seed: int) -> BatchOrder:
    """Batches of row indices for all epochs; rows x longest row of a batch stays within `batch_tokens`."""
    batches = BatchOrder()
    for epoch in range(epochs):
        rng = random.Random(f"{seed}:{epoch}")  # noqa: S311 - a reproducible order, not a secret
        rows = array("I", range(len(lengths)))
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
    """Lower-case sha256 hex of the order as compact JSON, which is never in memory as a whole."""
    found = hashlib.sha256(b"[")
    for number, batch in enumerate(batches):
        found.update(f"{',' if number else ''}[{','.join(map(str, batch))}]".encode())
    found.update(b"]")
    return found.hexdigest()


def count_tokens(batches: Sequence[Batch], lengths: Sequence[int]) -> int:
    """Trained tokens: the non-pad tokens that are fed through the model over these batches."""
    return sum(_count_batch(batch, lengths) for batch in batches)


def count_within(batches: Sequence[Batch], lengths: Sequence[int], most_tokens: int) -> int:
    """How many of the first batches train at most so many tokens together."""
    for number, batch in enumerate(batches):
        most_tokens -= _count_batch(batch, lengths)
        if most_tokens < 0:
            return number
    return len(batches)


def _count_batch(batch: Batch, lengths: Sequence[int]) -> int:
    return sum(lengths[row] for row in batch)


def _order_epoch(
    rows: "array[int]", lengths: Sequence[int], *, batch_tokens: int, rng: random.Random
) -> Iterator[Batch]:
    """Sort only within windows, so that batches stay random in content."""
    mean = max(1.0, sum(lengths) / max(1, len(lengths)))
    window = max(1, int(_WINDOW_BATCHES * batch_tokens / mean))
    batches = BatchOrder()
    for start in range(0, len(rows), window):
        part = sorted(rows[start : start + window], key=lambda row: -lengths[row])
        batches.extend(_cut(part, lengths, batch_tokens))
    order = array("I", range(len(batches)))
    rng.shuffle(order)
    return (batches[at] for at in order)


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
