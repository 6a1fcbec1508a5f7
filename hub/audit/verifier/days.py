"""Checks that a claim holds money of its days, and that a range shares none. It leaves sums to `claims`."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, timezone

from .reading import Row

SHANGHAI = timezone(timedelta(hours=8))


def check_days(claim: Row, standing: Iterable[Row]) -> Iterator[str]:
    """Nothing was used after the period, nor before a range but what came back; no claim that stands has its days."""
    start, end = read_days(claim["period"])
    for line in claim["lines"]:
        early = _is_range(claim) and line["booked_at"] < start and line["amount_fen"] > 0
        if early or line["booked_at"] >= end:
            yield f"claim {claim['id']} is for {claim['period']}, its transfer {line['transfer_id']} is of another day"
    if not _is_range(claim):
        return
    for other in standing:
        first, after = read_days(other["period"])
        if _asks_alike(claim, other) and claim["period"] != other["period"] and first < end and start < after:
            yield f"claim {claim['id']} is for {claim['period']}, of which claim {other['id']} has {other['period']}"


def read_days(period: str) -> tuple[int, int]:
    """Return the bounds of `2026-11`, `2026-Q4`, `2026` or `2026-11-03--2026-12-15` in Shanghai, in µs UTC.

    Raises:
        ValueError: another form.
    """
    first, ranged, last = period.partition("--")
    if ranged:
        return _start_of(date.fromisoformat(first)), _start_of(date.fromisoformat(last) + timedelta(days=1))
    year, _, part = period.partition("-")
    if part.startswith("Q"):
        months = (3 * int(part[1:]) - 2, 3 * int(part[1:]))
    else:
        months = (int(part), int(part)) if part else (1, 12)
    after = date(int(year) + months[1] // 12, months[1] % 12 + 1, 1)
    return _start_of(date(int(year), months[0], 1)), _start_of(after)


def _is_range(claim: Row) -> bool:
    return bool("--" in claim["period"])


def _asks_alike(claim: Row, other: Row) -> bool:
    """Say whether two claims are on one programme and about a firm in common; an empty one stands for all firms."""
    firms = {claim["organisation_id"], other["organisation_id"]}
    return bool(claim["programme_id"] == other["programme_id"] and ("" in firms or len(firms) == 1))


def _start_of(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).timestamp()) * 1_000_000
