"""The two clocks of the gateway, passed in so that tests can move them.

Sleeping and timeouts are left to asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def iso_time(at_us: int) -> str:
    """Return µs UTC as ISO 8601 text."""
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")


def _wall_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Clock:
    """`now_us` is wall time in µs UTC, `monotonic_s` only grows."""

    now_us: Callable[[], int] = _wall_us
    monotonic_s: Callable[[], float] = time.monotonic

    def iso_in(self, wait_s: float) -> str:
        """Return the wall time in `wait_s` as ISO 8601 text."""
        return iso_time(self.now_us() + int(wait_s * 1_000_000))
