"""Requests and tokens a minute and requests at once, per key, in sliding windows.

Money is left to `wallet`; the limits themselves are set in the hub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.contract import SnapshotKey
from serving.gateway.clock import Clock, iso_time
from serving.gateway.errors import ErrorType, GatewayError

WINDOW_S = 60.0


@dataclass
class _Window:
    """Amounts of the last 60 s, oldest first."""

    events: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, at_s: float, amount: int) -> None:
        self.events.append((at_s, amount))
        self.total += amount

    def expire(self, now_s: float) -> None:
        while self.events and self.events[0][0] <= now_s - WINDOW_S:
            self.total -= self.events.popleft()[1]

    def frees_in_s(self, now_s: float) -> float:
        return max(0.0, self.events[0][0] + WINDOW_S - now_s) if self.events else 0.0


@dataclass
class _KeyLoad:
    requests: _Window = field(default_factory=_Window)
    tokens: _Window = field(default_factory=_Window)
    running: int = 0


class RateLimits:
    """The load of every key seen by this gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loads: dict[str, _KeyLoad] = {}

    @contextmanager
    def seat(self, key: SnapshotKey) -> Iterator[None]:
        """Hold one place among the running requests of `key`. Raises: GatewayError 429 naming the limit."""
        now_s = self._clock.monotonic_s()
        load = self._loads.setdefault(key.key_id, _KeyLoad())
        load.requests.expire(now_s)
        load.tokens.expire(now_s)
        self._check(key, load, now_s)
        load.requests.add(now_s, 1)
        load.running += 1
        try:
            yield
        finally:
            load.running -= 1

    def count_tokens(self, key: SnapshotKey, tokens: int) -> None:
        """Add the tokens of a finished request."""
        self._loads.setdefault(key.key_id, _KeyLoad()).tokens.add(self._clock.monotonic_s(), tokens)

    def _check(self, key: SnapshotKey, load: _KeyLoad, now_s: float) -> None:
        uses = (
            ("concurrency", key.concurrency, load.running, 1.0),
            ("rpm", key.rpm, load.requests.total, load.requests.frees_in_s(now_s)),
            ("tpm", key.tpm, load.tokens.total, load.tokens.frees_in_s(now_s)),
        )
        for name, limit, used, wait_s in uses:
            if limit is not None and used >= limit:
                raise self._exceeded(key, name, limit, used=used, wait_s=wait_s)

    def _exceeded(self, key: SnapshotKey, name: str, limit: int, *, used: int, wait_s: float) -> GatewayError:
        resets_at = self._clock.now_us() + int(wait_s * 1_000_000)
        details = {
            "limit": name,
            "limit_value": limit,
            "set_by": f"key {key.key_id}",
            "used": used,
            "left": 0,
            "resets_at": iso_time(resets_at),
        }
        message = f"limit {name} = {limit} set on key {key.key_id} is used up ({used} used); retry in {wait_s:.0f} s"
        return GatewayError(
            429,
            "rate_limit_exceeded",
            message,
            kind=ErrorType.RATE_LIMIT,
            details=details,
            retry_after_s=max(1, int(wait_s + 0.999)),
        )
