"""The one place that reads the wall clock, so that services and tests take it as an argument.

It leaves calendars and time zones to the rooms that need them; Asia/Shanghai lives at the edge.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def read_clock() -> datetime:
    """Return the current time, aware, UTC."""
    return datetime.now(UTC)


def to_us(moment: datetime) -> int:
    """Return whole microseconds since 1970 UTC.

    Raises:
        ValueError: the time carries no zone, so its instant is unknown.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; give an aware time")
    return (moment - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the aware UTC time of whole microseconds since 1970."""
    return _EPOCH + microseconds * _MICROSECOND
