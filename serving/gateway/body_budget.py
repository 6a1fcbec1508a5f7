"""How many bytes of request bodies this process holds at once, over all of its calls.

It counts a body as it came, from its first piece read to the end of its call. Reading is left to `exchange`.
"""

from __future__ import annotations

from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError, Limit, unavailable

MAX_BODY_BYTES = 4 * 1024 * 1024
BODIES_MIB = 256
OPTION = "--bodies-mib"
_SOON_S = 2


class BodyBudget:
    """The bytes held and the most that may be."""

    def __init__(self, limit_bytes: int, clock: Clock) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes that came in. Raises: GatewayError 503 when they are too many; none of them count then."""
        if self.held_bytes + size_bytes > self._limit_bytes:
            raise self._full(size_bytes)
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Count bytes no longer."""
        self.held_bytes -= size_bytes

    def _full(self, size_bytes: int) -> GatewayError:
        left = self._limit_bytes - self.held_bytes
        text = (
            f"the bodies of running calls have {self.held_bytes} bytes, {self._limit_bytes} may be held and "
            f"{size_bytes} more came; retry in {_SOON_S} s"
        )
        resets_at = self._clock.iso_in(_SOON_S)
        limit = Limit(
            "held_body_bytes", self._limit_bytes, f"gateway option {OPTION}", self.held_bytes, left, resets_at
        )
        return unavailable("bodies_full", text, retry_after_s=_SOON_S, limit=limit)
