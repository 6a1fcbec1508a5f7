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

_SOON_S = 1.0
"""Running requests may end at any moment."""


class RateLimits:
    """The load of every key seen by this gateway."""

    def __init__(self, clock: Clock, table: SharedTable | None = None) -> None:
        self._clock = clock
        self._table = table or SharedTable()

    @contextmanager
    def seat(self, key: SnapshotKey, worst_tokens: int) -> Iterator[None]:
        """Hold one place among the running requests of `key` meanwhile. Raises: as `enter`."""
        self.enter(key, worst_tokens)
        try:
            yield
        finally:
            self.leave(key, worst_tokens, 0)

    def enter(self, key: SnapshotKey, worst_tokens: int) -> None:
        """Take a place among the running requests of `key` and set aside the most tokens that this one can use.

        Raises: GatewayError 429 naming the limit, 503.
        """
        row = self._lock(key)
        try:
            self._check(key, row, worst_tokens)
            row.add(REQUESTS, 1)
            row.run(1)
            row.reserve(worst_tokens)
        finally:
            self._table.unlock(row)

    def leave(self, key: SnapshotKey, worst_tokens: int, used_tokens: int) -> None:
        """Give the place and what was set aside back, and count what was really used."""
        row = self._lock(key)
        row.run(-1)
        row.reserve(-worst_tokens)
        row.add(TOKENS, used_tokens)
        self._table.unlock(row)

    def _lock(self, key: SnapshotKey) -> Row:
        try:
            return self._table.lock(key.key_id, self._clock.monotonic_s())
        except TableFullError as error:
            limit = Limit("active_keys", MAX_ROWS, "gateway", MAX_ROWS, resets_at=self._clock.iso_in(120))
            text = f"{error}; retry in two minutes"
            raise unavailable("too_many_keys", text, retry_after_s=120, limit=limit) from error

    def _check(self, key: SnapshotKey, row: Row, worst_tokens: int) -> None:
        if key.concurrency is not None and (running := row.running) >= key.concurrency:
            raise self._exceeded(key, "concurrency", key.concurrency, used=running, wait_s=_SOON_S)
        if key.rpm is not None and (used := row.used(REQUESTS)) >= key.rpm:
            wait_s = row.frees_in_s(REQUESTS, used - key.rpm + 1, self._clock.monotonic_s())
            raise self._exceeded(key, "rpm", key.rpm, used=used, wait_s=wait_s)
        if key.tpm is not None:
            self._check_tokens(key, key.tpm, row, worst_tokens)

    def _check_tokens(self, key: SnapshotKey, tpm: int, row: Row, worst_tokens: int) -> None:
        """Refuse a request that could pass the limit together with what was used and what runs."""
        used, reserved = row.used(TOKENS), row.reserved
        if used + reserved + worst_tokens <= tpm:
            return
        what = f"; this call may use up to {worst_tokens}, so shorten it or ask for fewer max_tokens"
        wait_s, too_many = None, used + worst_tokens - tpm
        if worst_tokens <= tpm:
            wait_s = row.frees_in_s(TOKENS, too_many, self._clock.monotonic_s()) if too_many > 0 else _SOON_S
        raise self._exceeded(key, "tpm", tpm, used=used + reserved, wait_s=wait_s, what=what)

    def _exceeded(
        self, key: SnapshotKey, name: str, limit: int, *, used: int, wait_s: float | None, what: str = ""
    ) -> GatewayError:
        """Return the refusal; waiting is no help where `wait_s` is None."""
        left = max(0, limit - used)
        wait = "" if wait_s is None else f"; retry in {wait_s:.0f} s"
        return GatewayError(
            429,
            "rate_limit_exceeded",
            f"limit {name} = {limit} set on key {key.key_id}: {used} used, {left} left{what}{wait}",
            kind=ErrorType.RATE_LIMIT,
            limit=Limit(
                name, limit, f"key {key.key_id}", used, left, None if wait_s is None else self._clock.iso_in(wait_s)
            ),
            retry_after_s=None if wait_s is None else max(1, int(wait_s + 0.999)),
            retry=False if wait_s is None else None,
        )
