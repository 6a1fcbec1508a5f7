"""Packed token rows are the rows that went in."""

from dataclasses import replace

import pytest

from finetune.token_rows import TokenRows
from finetune.tokens import TokenRow

ROWS = [
    TokenRow(row=1, ids=[5, 70_000, 3], learn=((1, 3),), answer="更换油封"),
    TokenRow(row=4, ids=[9], learn=((0, 1),), answer=""),
    TokenRow(row=9, ids=[1, 2, 3, 4, 5, 6], learn=((1, 2), (3, 6)), answer="x"),
    TokenRow(row=12, ids=[7, 8], learn=((1, 2),), answer="停机检查"),
]


def test_rows_come_out_as_they_went_in() -> None:
    packed = TokenRows(ROWS[:1])
    packed.extend(ROWS[1:])
    assert list(packed) == ROWS
    assert (len(packed), packed[-1], packed[:2], list(packed.lengths)) == (4, ROWS[3], ROWS[:2], [3, 1, 6, 2])
    assert packed.find_longest_answer() == 3
    with pytest.raises(IndexError):
        packed[4]


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 6])
def test_long_rows_are_named_and_left_out(limit: int) -> None:
    packed = TokenRows(ROWS)
    assert packed.drop_long(limit) == [row.row for row in ROWS if len(row.ids) > limit]
    short = [row for row in ROWS if len(row.ids) <= limit]
    assert (list(packed), list(packed.lengths)) == (short, [len(row.ids) for row in short])
    packed.extend(ROWS)
    assert list(packed) == short + ROWS, "what comes after stands behind what was kept"
    assert TokenRows().find_longest_answer() == 0


def test_rows_that_nothing_scores_keep_no_text() -> None:
    packed = TokenRows(ROWS, keeps_answers=False)
    assert list(packed) == [replace(row, answer="") for row in ROWS]
    assert packed.find_longest_answer() == 3
