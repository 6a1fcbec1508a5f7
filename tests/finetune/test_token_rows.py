"""Packed token rows are the rows that went in."""

import pytest

from finetune.token_rows import TokenRows
from finetune.tokens import TokenRow

ROWS = [
    TokenRow(row=1, ids=[5, 70_000, 3], learn=((1, 3),), answer="更换油封"),
    TokenRow(row=4, ids=[9], learn=((0, 1),), answer=""),
    TokenRow(row=9, ids=[1, 2, 3, 4, 5, 6], learn=((1, 2), (3, 6)), answer="x"),
]


def test_rows_come_out_as_they_went_in() -> None:
    packed = TokenRows(ROWS[:1])
    packed.extend(ROWS[1:])
    assert list(packed) == ROWS
    assert (len(packed), packed[-1], packed[:2], list(packed.lengths)) == (3, ROWS[2], ROWS[:2], [3, 1, 6])
    assert packed.find_longest_answer() == 3
    with pytest.raises(IndexError):
        packed[3]


def test_long_rows_are_named_and_left_out() -> None:
    packed = TokenRows(ROWS)
    assert packed.list_long(3) == [9]
    assert list(packed.keep_short(3)) == ROWS[:2]
    assert packed.keep_short(6) is packed
    assert len(packed.keep_short(0)) == TokenRows().find_longest_answer() == 0
