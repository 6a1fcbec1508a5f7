"""Months and years of money are Shanghai's: the new year comes eight hours before UTC's."""

from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import InvalidValueError
from hub.ledger.periods import month_bounds, month_key, year_key

NEW_YEAR = datetime(2026, 12, 31, 16, 0, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def test_the_year_turns_at_four_in_the_afternoon_utc() -> None:
    assert (year_key(NEW_YEAR - INSTANT), year_key(NEW_YEAR)) == ("2026", "2027")
    assert (month_key(NEW_YEAR - INSTANT), month_key(NEW_YEAR)) == ("2026-12", "2027-01")


def test_a_month_ends_where_the_next_begins() -> None:
    assert month_bounds("2026-12")[1] == NEW_YEAR == month_bounds("2027-01")[0]


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "202611", "2026-11\n", "0000-01", "9999-01", ""])
def test_other_shapes_are_refused(month: str) -> None:
    with pytest.raises(InvalidValueError):
        month_bounds(month)
