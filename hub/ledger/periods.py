"""Calendar periods of money: Shanghai months and years, as keys that are stored once and never recomputed.

It leaves which period a rule counts in to the rooms that own the rule.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from hub.errors import InvalidValueError

# China has kept UTC+8 without daylight saving since 1991, so a fixed offset is exact and needs no zone files.
SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])\Z")


@lru_cache(maxsize=1024)
def month_key(moment: datetime) -> str:
    """Return the Shanghai month of an instant, for example `2026-11`."""
    return moment.astimezone(SHANGHAI).strftime("%Y-%m")


def year_key(moment: datetime) -> str:
    """Return the Shanghai calendar year of an instant, for example `2026`."""
    return moment.astimezone(SHANGHAI).strftime("%Y")


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """Return the first instant of a Shanghai month and of the next one, in UTC.

    Raises:
        InvalidValueError: the key is not of the form `2026-11`.
    """
    found = _MONTH.match(month)
    if not found or not 1 <= int(found[1]) <= 9998:
        raise InvalidValueError(
            f"Month '{month}' is not of the form YYYY-MM; give for example 2026-11.",
            f"月份“{month}”格式不对，应为 YYYY-MM，例如 2026-11。",
            field="month",
        )
    year, number = int(found[1]), int(found[2])
    start = datetime(year, number, 1, tzinfo=SHANGHAI)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=SHANGHAI)
    return start.astimezone(UTC), end.astimezone(UTC)
