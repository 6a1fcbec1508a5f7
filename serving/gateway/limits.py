"""Requests and tokens a minute and requests at once, per key, over all processes of this gateway.

The counting is `shared_table`'s, money is left to `wallet`; the limits themselves are set in the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.contract import SnapshotKey
from serving.gateway.clock import Clock
from serving.gateway.errors import ErrorType, GatewayError, Limit, unavailable
from serving.gateway.shared_table import MAX_ROWS, REQUESTS, TOKENS, Row, SharedTable, TableFullError


class RateLimits:
    """The load of every key seen by this gateway."""

    def __init__(self, clock: Clock, table: SharedTable | None = None) -> None:
        self._clock = clock
        self._table = table or SharedTable()

    @contextmanager
    def seat(self, key: SnapshotKey) -> Iterator[None]:
        """Hold one place among the running requests of `key` meanwhile. Raises: as `enter`."""
        self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    def enter(self, key: SnapshotKey) -> None:
        """Take a place among the running requests of `key`. Raises: GatewayError 429 naming the limit, 503."""
        row = self._lock(key)
        try:
            self._check(key, row)
            row.add(REQUESTS, 1)
            row.run(1)
        finally:
            self._table.unlock(row)

    def leave(self, key: SnapshotKey) -> None:
        """Give the place back."""
        row = self._lock(key)
        row.run(-1)
        self._table.unlock(row)

    def count_tokens(self, key: SnapshotKey, tokens: int) -> None:
        """Add the tokens of a finished request."""
        row = self._lock(key)
        row.add(TOKENS, tokens)
        self._table.unlock(row)

    def _lock(self, key: SnapshotKey) -> Row:
        try:
            return self._table.lock(key.key_id, self._clock.monotonic_s())
        except TableFullError as error:
            limit = Limit("active_keys", MAX_ROWS, "gateway", MAX_ROWS, resets_at=self._clock.iso_in(120))
            text = f"{error}; retry in two minutes"
            raise unavailable("too_many_keys", text, retry_after_s=120, limit=limit) from error

    def _check(self, key: SnapshotKey, row: Row) -> None:
        if key.concurrency is not None and (running := row.running) >= key.concurrency:
            raise self._exceeded(key, "concurrency", key.concurrency, used=running, wait_s=1.0)
        for name, limit, window in (("rpm", key.rpm, REQUESTS), ("tpm", key.tpm, TOKENS)):
            if limit is not None and (used := row.used(window)) >= limit:
                wait_s = row.frees_in_s(window, self._clock.monotonic_s())
                raise self._exceeded(key, name, limit, used=used, wait_s=wait_s)

    def _exceeded(self, key: SnapshotKey, name: str, limit: int, *, used: int, wait_s: float) -> GatewayError:
        message = f"limit {name} = {limit} set on key {key.key_id} is used up ({used} used); retry in {wait_s:.0f} s"
        return GatewayError(
            429,
            "rate_limit_exceeded",
            message,
            kind=ErrorType.RATE_LIMIT,
            limit=Limit(name, limit, f"key {key.key_id}", used, resets_at=self._clock.iso_in(wait_s)),
            retry_after_s=max(1, int(wait_s + 0.999)),
        )
