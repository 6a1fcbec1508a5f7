"""Columns in which a spreadsheet changed some numbers: leading zeros that are gone, dates that became counts of days.

Leaves numbers that lost their last digits to `finetune.sources`. Keeps counts by column and the plain numbers of the
rows up to a bound, never a text.
"""

import re
from array import array
from collections import Counter
from dataclasses import dataclass, field

from finetune.issues import IssueLog

_MOST_CHARS = 15
MOST_CELL_CHARS = 2 * _MOST_CHARS
"""Longer cells are texts, whatever blanks are around a number."""
_MOST_KEPT = 200_000
_LEAST_ALIKE = 3
_TIMES_AS_MANY = 4
"""So many cells of a column have to show how its numbers or dates look before others in it are doubted, and so many
times as many as those: a few sizes 0603 among counts, or a few dates, say nothing of the others."""
_NUMBER = re.compile(r"[0-9]+")
_DATE = re.compile(r"(?:19|20)[0-9]{2}(?:[-/.][0-9]{1,2}[-/.][0-9]{1,2}|年[0-9]{1,2}月[0-9]{1,2}日)")
_DATE_HEADING = re.compile(r"日期|\bdate\b", re.IGNORECASE)
_DAYS = range(36_526, 55_154)
"""Days of 2000-01-01 to 2050-12-31, as spreadsheets count them from 1899-12-30."""


@dataclass
class _Column:
    padded: Counter[int] = field(default_factory=Counter)
    """Digits -> cells of so many digits that begin with 0."""
    dates: int = 0
    rows: "array[int]" = field(default_factory=lambda: array("I"))
    values: "array[int]" = field(default_factory=lambda: array("Q"))


class NumberWatch:
    """Looks at short cells one by one; what is doubtful is known when all have been seen."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._kept = 0

    def look(self, name: str, row: int, cell: str) -> None:
        """See one cell of at most MOST_CELL_CHARS whose first sign is one of the digits 0 to 9."""
        text = cell.strip()
        if len(text) > _MOST_CHARS:
            return
        column = self._columns.setdefault(name, _Column())
        if not _NUMBER.fullmatch(text):
            column.dates += _DATE.fullmatch(text) is not None
        elif text[0] == "0":
            column.padded[len(text)] += 1
        elif self._kept < _MOST_KEPT:
            self._kept += 1
            column.rows.append(row)
            column.values.append(int(text))

    def tell(self, issues: IssueLog) -> None:
        """Add the rows whose number looks unlike the others of its column."""
        for name, column in self._columns.items():
            width, count = column.padded.most_common(1)[0] if column.padded else (0, 0)
            short = 10 ** max(0, width - 1)
            are_padded = _is_clear(count, sum(value < short for value in column.values))
            days = sum(value in _DAYS for value in column.values)
            are_dates = _is_clear(column.dates, days) or bool(_DATE_HEADING.search(name))
            for row, value in zip(column.rows, column.values, strict=True):
                if are_padded and value < short:
                    example = "0" * width
                elif are_dates and value in _DAYS:
                    example = "2026-01-31"
                else:
                    continue
                issues.add("id_like_numbers_changed", row=row, column=name, value=value, example=example)


def _is_clear(count: int, doubtful: int) -> bool:
    """Whether cells of one look are enough to doubt the others."""
    return count >= max(_LEAST_ALIKE, _TIMES_AS_MANY * doubtful)
