"""The hub's part of a controller that stands alone: desired state from a file that a person keeps.

It answers the calls of `hub_link` with the same messages. A file that is broken, half-written or gone changes nothing:
the last good one stays in force, over restarts of the controller too. Writing the routes is left to `routes_file`.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from serving.contract import ContractError, Desired, DesiredFile, Observed, WitnessBatch, check_desired, encode, loads
from serving.launch.run import write_atomically
from serving.pool.hub_link import HubSilentError

_EPOCH = 1
_LOOK_EVERY_S = 0.25


class DesiredFileError(HubSilentError):
    """The file cannot be used as it is; `code` says why."""

    def __init__(self, path: Path, code: str, message: str) -> None:
        super().__init__(f"{path}: {message}", code)


class FileHub:
    """One desired file. `wanted` is its last good content, also that of an earlier controller of this state folder."""

    def __init__(self, path: Path, state: Path) -> None:
        self._path = path
        self._kept_path = state / "desired_file.json"
        self._seen: bytes | None = None
        self._problem: DesiredFileError | None = None
        self.wanted = self._load_kept()
        self._generation = 0 if self.wanted is None else 1
        self.epoch: int | None = _EPOCH

    @property
    def names(self) -> Mapping[str, str]:
        """Digests by the public names of the last good file."""
        return self.wanted.names if self.wanted is not None else {}

    def leads(self) -> bool:
        """There is no other controller that could lead."""
        return True

    async def ensure_lead(self) -> int:
        """Whoever has the file leads."""
        return _EPOCH

    async def fetch_desired(self, *, after: int, wait_s: float) -> Desired | None:
        """Desired state unlike generation `after`, None when none within `wait_s`.

        Raises: DesiredFileError while the file cannot be used and there is no newer good one.
        """
        give_up_at = time.monotonic() + wait_s
        while True:
            problem = self._look()
            if self.wanted is not None and self._generation != after:
                wanted = self.wanted
                return Desired(_EPOCH, self._generation, wanted.replica_sets, wanted.slots, wanted.adapters)
            if problem is not None:
                raise problem.with_traceback(None)
            if time.monotonic() > give_up_at:
                return None
            await asyncio.sleep(_LOOK_EVERY_S)

    async def report(self, observed: Observed) -> None:
        """Nobody is told; `GET /status` shows the same. Raises: DesiredFileError while the file cannot be used."""
        problem = self._look()
        if problem is not None:
            raise problem.with_traceback(None)

    async def send_witness(self, batch: WitnessBatch) -> None:
        """Nobody compares it with bills here."""

    def lose(self, epoch: int) -> None:
        """There is no other controller that could lead."""

    def _look(self) -> DesiredFileError | None:
        """Take what the file says now; returns what is wrong with it."""
        try:
            text = self._path.read_bytes()
        except OSError as error:
            return DesiredFileError(self._path, "desired_file_unreadable", str(error.strerror))
        if text != self._seen:
            try:
                self._problem = self._take(text)
            except OSError as error:
                reason = f"what it says cannot be kept in {self._kept_path}: {error.strerror}; make room there"
                return DesiredFileError(self._path, "state_unwritable", reason)
            self._seen = text
        return self._problem

    def _take(self, text: bytes) -> DesiredFileError | None:
        try:
            wanted = loads(DesiredFile, text)
            check_desired(wanted)
        except ContractError as error:
            where = "" if error.field in error.message else f" ({error.field})"
            return DesiredFileError(self._path, error.code, f"{error.message}{where}")
        if wanted != self.wanted:
            write_atomically(self._kept_path, encode(wanted))
            self.wanted = wanted
            self._generation += 1
        return None

    def _load_kept(self) -> DesiredFile | None:
        try:
            return loads(DesiredFile, self._kept_path.read_bytes())
        except (FileNotFoundError, ContractError):
            return None
