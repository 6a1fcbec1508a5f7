"""Requests that coincided with the death of an engine, so that none of them kills the next one.

They lie as files in a folder that the processes of one gateway share: a retry may meet another process. Noticing the
death is left to `completions`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError

QUARANTINE_S = 600.0
MAX_SUSPECTS = 4096
_MAX_DEATHS = 2
_TICK_NS = 50_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Suspicion:
    """`share` adds up one part of each death: 1 when nobody else was waiting for a first token there."""

    share: float
    deaths: int
    until_s: float

    @property
    def enough(self) -> bool:
        return self.share >= 1.0 or self.deaths >= _MAX_DEATHS

    def holds(self, now_s: float) -> bool:
        """Return whether it is still in force; one with more time than that is from before the machine's last start."""
        return 0 < self.until_s - now_s <= QUARANTINE_S


class Suspects:
    """Fingerprints of requests under suspicion, the oldest forgotten first.

    A process that is `alone` reads the folder once: nobody else writes there.
    """

    def __init__(self, folder: Path, clock: Clock, *, alone: bool = False) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._alone = alone
        self._found: dict[str, _Suspicion] = {}
        self._read_at_ns = 0

    def check(self, organisation_id: str, path: str, raw: bytes) -> None:
        """Let a request pass. Raises: GatewayError 422 while it is quarantined."""
        self._look()
        if not self._found:
            return
        found = self._found.get(_fingerprint(organisation_id, path, raw))
        now_s = self._clock.monotonic_s()
        if found is not None and found.enough and found.holds(now_s):
            left_s = found.until_s - now_s
            text = f"an engine died while it ran this very request; it is not run again for {left_s:.0f} s; change it"
            raise GatewayError(422, "request_quarantined", text, retry=False)

    def note_death(self, organisation_id: str, path: str, raw: bytes, *, crowd: int) -> None:
        """Suspect a request that had no token yet when its engine died, as one of `crowd`."""
        self._look()
        name, now_s = _fingerprint(organisation_id, path, raw), self._clock.monotonic_s()
        before = self._found.get(name)
        share, deaths = 1.0 / max(1, crowd), 1
        if before is not None and before.holds(now_s):
            share, deaths = share + before.share, deaths + before.deaths
        self._found[name] = _Suspicion(share, deaths, now_s + QUARANTINE_S)
        try:
            self._tell_others(name, self._found[name])
        except OSError as error:
            _log.error("a request that may kill engines is known to this process only: %s", error)

    def _look(self) -> None:
        """Read the folder again where another process changed it."""
        if self._alone and self._read_at_ns:
            return
        changed_at_ns = os.stat(self._folder).st_mtime_ns
        if changed_at_ns == self._read_at_ns:
            return
        # Two changes within one tick of the file system have the same time: a fresh one is looked at again.
        self._read_at_ns = changed_at_ns if time.time_ns() - changed_at_ns > _TICK_NS else 0
        now_s = self._clock.monotonic_s()
        with os.scandir(self._folder) as entries:
            told = {entry.name: _read(Path(entry.path)) for entry in entries if not entry.name.startswith(".")}
        found = self._found | {name: suspicion for name, suspicion in told.items() if suspicion is not None}
        self._found = {name: suspicion for name, suspicion in found.items() if suspicion.holds(now_s)}

    def _tell_others(self, name: str, suspicion: _Suspicion) -> None:
        draft = self._folder / f".{name}.{os.getpid()}"
        draft.write_text(f"{suspicion.share} {suspicion.deaths} {suspicion.until_s}")
        draft.replace(self._folder / name)
        by_age = sorted(self._found, key=lambda each: self._found[each].until_s)
        too_many, now_s = len(by_age) - MAX_SUSPECTS, self._clock.monotonic_s()
        for number, each in enumerate(by_age):
            if number < too_many or not self._found[each].holds(now_s):
                (self._folder / each).unlink(missing_ok=True)
                del self._found[each]


def _read(path: Path) -> _Suspicion | None:
    """Return what a file says; None for what another process just took away."""
    try:
        share, deaths, until_s = path.read_text().split()
        return _Suspicion(float(share), int(deaths), float(until_s))
    except (FileNotFoundError, ValueError):
        return None


def _fingerprint(organisation_id: str, path: str, raw: bytes) -> str:
    return hashlib.sha256(b"\0".join((organisation_id.encode(), path.encode(), raw))).hexdigest()
