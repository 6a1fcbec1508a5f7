"""Token rows of a whole file, packed: 4 bytes a token and some 40 a row besides its answer, however many rows.

Leaves making them to `finetune.tokens`. Python lists of numbers take ten times the room of a million rows.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, overload

from finetune.errors import DataError
from finetune.files import read_lines
from finetune.tokens import Message, TokenRow, tokenize_rows

_BATCH_ROWS = 2_000


class TokenRows(Sequence[TokenRow]):
    """Rows in their order; each is unpacked when it is asked for. `lengths` are their token counts.

    Without `keeps_answers` each row's text is empty: only what is scored needs it.
    """

    def __init__(self, rows: Iterable[TokenRow] = (), *, keeps_answers: bool = True) -> None:
        self.lengths = array("I")
        self._keeps_answers = keeps_answers
        self._numbers = array("I")
        self._ids, self._learn, self._answers = array("I"), array("I"), array("B")
        self._id_ends, self._learn_ends, self._answer_ends = (array("Q", [0]) for _ in range(3))
        self.extend(rows)

    def extend(self, rows: Iterable[TokenRow]) -> None:
        """Append rows."""
        for row in rows:
            self.lengths.append(len(row.ids))
            self._numbers.append(row.row)
            self._ids.extend(row.ids)
            self._learn.extend(place for span in row.learn for place in span)
            self._answers.frombytes(row.answer.encode() if self._keeps_answers else b"")
            self._id_ends.append(len(self._ids))
            self._learn_ends.append(len(self._learn))
            self._answer_ends.append(len(self._answers))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        """One row; of a slice a list of rows."""
        if isinstance(index, slice):
            return [self._unpack(at) for at in range(*index.indices(len(self)))]
        return self._unpack(range(len(self))[index])

    def drop_long(self, limit: int) -> list[int]:
        """Leave out the rows of more than `limit` tokens, in place; returns their numbers."""
        kept = array("B", (length <= limit for length in self.lengths))
        long = [number for number, is_kept in zip(self._numbers, kept, strict=True) if not is_kept]
        if long:
            self.lengths, self._numbers = (array("I", compress(one, kept)) for one in (self.lengths, self._numbers))
            _compact(self._ids, self._id_ends, kept)
            _compact(self._learn, self._learn_ends, kept)
            _compact(self._answers, self._answer_ends, kept)
        return long

    def find_longest_answer(self) -> int:
        """Tokens of the longest last answer, end-of-turn included."""
        return max((self._learn[end - 1] - self._learn[end - 2] for end in self._learn_ends[1:]), default=0)

    def _unpack(self, at: int) -> TokenRow:
        places = self._learn[_between(self._learn_ends, at)]
        return TokenRow(
            row=self._numbers[at],
            ids=self._ids[_between(self._id_ends, at)].tolist(),
            learn=tuple(zip(places[::2], places[1::2], strict=True)),
            answer=self._answers[_between(self._answer_ends, at)].tobytes().decode(),
        )


def _compact(values: "array[int]", ends: "array[int]", kept: Sequence[int]) -> None:
    """Move what is kept to the front and cut the rest off: a copy would take the room of all tokens again."""
    rows = filled = start = 0
    for at, is_kept in enumerate(kept):
        end = ends[at + 1]
        if is_kept:
            values[filled : filled + end - start] = values[start:end]
            filled += end - start
            rows += 1
            ends[rows] = filled
        start = end
    del ends[rows + 1 :]
    del values[filled:]


def _between(ends: "array[int]", at: int) -> slice:
    return slice(ends[at], ends[at + 1])


def tokenize_file(
    tokenizer: Any, path: Path, on_part: Callable[[], None] = lambda: None, *, keeps_answers: bool = True
) -> TokenRows:
    """All rows of a chat JSONL file that `check` wrote; `on_part` is called after some of them.

    Raises: DataError `row_not_chat` and `tool_role_not_rendered`, and BaseError.
    """
    found = TokenRows(keeps_answers=keeps_answers)
    for rows in read_batches(path):
        found.extend(tokenize_rows(tokenizer, rows, path))
        on_part()
    return found


def read_batches(path: Path) -> Iterator[list[tuple[int, Sequence[Message]]]]:
    """Yield lists of (line number, messages); memory holds one batch. Raises: DataError `row_not_chat`."""
    batch: list[tuple[int, Any]] = []
    for number, value in read_lines(path):
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            raise DataError("row_not_chat", f"{path.name} line {number} has no messages; check the data set again.")
        batch.append((number, value["messages"]))
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
