"""Requests that coincided with the death of an engine, so that none of them kills the next one.

Noticing the death is left to `completions`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError

QUARANTINE_S = 600.0
MAX_SUSPECTS = 4096
_MAX_DEATHS = 2


@dataclass(frozen=True)
class _Suspicion:
    """`share` adds up one part of each death: 1 when nobody else was waiting for a first token there."""

    share: float
    deaths: int
    until_s: float

    @property
    def enough(self) -> bool:
        return self.share >= 1.0 or self.deaths >= _MAX_DEATHS


class Suspects:
    """Fingerprints of requests under suspicion, the oldest forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[bytes, _Suspicion] = OrderedDict()

    def check(self, organisation_id: str, path: str, raw: bytes) -> None:
        """Let a request pass. Raises: GatewayError 422 while it is quarantined."""
        if not self._found:
            return
        found = self._found.get(_fingerprint(organisation_id, path, raw))
        left_s = 0.0 if found is None else found.until_s - self._clock.monotonic_s()
        if found is not None and found.enough and left_s > 0:
            text = f"an engine died while it ran this very request; it is not run again for {left_s:.0f} s; change it"
            raise GatewayError(422, "request_quarantined", text, retry=False)

    def note_death(self, organisation_id: str, path: str, raw: bytes, *, crowd: int) -> None:
        """Suspect a request that had no token yet when its engine died, as one of `crowd`."""
        name, now_s = _fingerprint(organisation_id, path, raw), self._clock.monotonic_s()
        before = self._found.pop(name, None)
        share, deaths = 1.0 / max(1, crowd), 1
        if before is not None and before.until_s > now_s:
            share, deaths = share + before.share, deaths + before.deaths
        self._found[name] = _Suspicion(share, deaths, now_s + QUARANTINE_S)
        if len(self._found) > MAX_SUSPECTS:
            self._found.popitem(last=False)


def _fingerprint(organisation_id: str, path: str, raw: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((organisation_id.encode(), path.encode(), raw))).digest()
