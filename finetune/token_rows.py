"""Token rows of a whole file, packed: 4 bytes a token and some 40 a row besides its answer, however many rows.

Leaves making them to `finetune.tokens`. Python lists of numbers take ten times the room of a million rows.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from finetune.errors import DataError
from finetune.files import read_lines
from finetune.tokens import Message, TokenRow, tokenize_rows

_BATCH_ROWS = 2_000


class TokenRows(Sequence[TokenRow]):
    """Rows in their order; each is unpacked when it is asked for. `lengths` are their token counts."""

    def __init__(self, rows: Iterable[TokenRow] = ()) -> None:
        self.lengths = array("I")
        self._numbers = array("I")
        self._ids, self._learn, self._answers = array("I"), array("I"), bytearray()
        self._id_ends, self._learn_ends, self._answer_ends = (array("Q", [0]) for _ in range(3))
        self.extend(rows)

    def extend(self, rows: Iterable[TokenRow]) -> None:
        """Append rows."""
        for row in rows:
            self.lengths.append(len(row.ids))
            self._numbers.append(row.row)
            self._ids.extend(row.ids)
            self._learn.extend(place for span in row.learn for place in span)
            self._answers += row.answer.encode()
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

    def keep_short(self, limit: int) -> "TokenRows":
        """The rows of at most `limit` tokens."""
        if max(self.lengths, default=0) <= limit:
            return self
        return TokenRows(row for row in self if len(row.ids) <= limit)

    def list_long(self, limit: int) -> list[int]:
        """Numbers of the rows of more than `limit` tokens."""
        return [number for number, length in zip(self._numbers, self.lengths, strict=True) if length > limit]

    def find_longest_answer(self) -> int:
        """Tokens of the longest last answer, end-of-turn included."""
        return max((self._learn[end - 1] - self._learn[end - 2] for end in self._learn_ends[1:]), default=0)

    def _unpack(self, at: int) -> TokenRow:
        places = self._learn[_between(self._learn_ends, at)]
        return TokenRow(
            row=self._numbers[at],
            ids=self._ids[_between(self._id_ends, at)].tolist(),
            learn=tuple(zip(places[::2], places[1::2], strict=True)),
            answer=self._answers[_between(self._answer_ends, at)].decode(),
        )


def _between(ends: "array[int]", at: int) -> slice:
    return slice(ends[at], ends[at + 1])


def tokenize_file(tokenizer: Any, path: Path, on_part: Callable[[], None] = lambda: None) -> TokenRows:
    """All rows of a chat JSONL file that `check` wrote; `on_part` is called after some of them.

    Raises: DataError `row_not_chat` and `tool_role_not_rendered`, and BaseError.
    """
    found = TokenRows()
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
