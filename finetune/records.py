"""Uploads to raw records, one after the other, with the row numbers that the customer sees; also what is wrong there.

Leaves values and columns to `finetune.sources`. The same records are read again to write the annotated copy.
"""

import csv
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune.text_lines import MOST_LINE_BYTES, Line, LineProblem

MOST_ROWS = 3_000_000
_MOST_LINES_OF_A_RECORD = 200


@dataclass(frozen=True)
class Problem:
    """A code of the report with what its message needs."""

    code: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One line of JSONL (`cells` is that line alone), record of CSV or row of a sheet; the first is number 1."""

    number: int
    cells: list[str]
    problem: Problem | None = None


def read_line_records(lines: Iterator[Line], encoding: str) -> Iterator[Record]:
    """Each line as a record of its own."""
    for line in lines:
        yield Record(line.number, [line.text], _find_problem([line], encoding))


def read_csv_records(lines: Iterator[Line], encoding: str, delimiter: str) -> Iterator[Record]:
    """Records of RFC 4180; after a quote that nobody closes, reading goes on at the next line."""
    csv.field_size_limit(MOST_LINE_BYTES)
    feed = _Feed(lines)
    number = 0
    while not feed.is_done:
        try:
            for cells in csv.reader(feed, delimiter=delimiter, strict=True):
                number += 1
                yield Record(number, cells, _find_problem(feed.take(), encoding))
        except (csv.Error, _OpenQuoteError):
            number += 1
            first = feed.push_back()
            yield Record(number, [first.text.rstrip("\r\n")], Problem("csv_quotes"))


def find_delimiter(header: str) -> str:
    """Comma, tabulator or semicolon, whichever the header has most of."""
    return max((",", "\t", ";"), key=header.count)


class _OpenQuoteError(Exception):
    """A record runs on over too many lines."""


class _Feed:
    """Gives lines to the CSV reader and remembers those of the record that it is reading."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._waiting: deque[Line] = deque()
        self._used: list[Line] = []
        self.is_done = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._used) >= _MOST_LINES_OF_A_RECORD:
            raise _OpenQuoteError
        line = self._waiting.popleft() if self._waiting else next(self._lines, None)
        if line is None:
            self.is_done = not self._used
            raise StopIteration
        self._used.append(line)
        return line.text

    def take(self) -> list[Line]:
        """The lines of the record just read."""
        used, self._used = self._used, []
        return used

    def push_back(self) -> Line:
        """Return the first line of the broken record; the others are read again."""
        first, *others = self.take()
        self._waiting.extendleft(reversed(others))
        return first


def _find_problem(lines: list[Line], encoding: str) -> Problem | None:
    for line in lines:
        if line.problem is LineProblem.TOO_LONG:
            return Problem(str(line.problem), {"limit": MOST_LINE_BYTES // 1024})
        if line.problem is LineProblem.INVALID_BYTES:
            return Problem(str(line.problem), {"encoding": encoding.upper(), "byte": line.at})
    return None
