"""The journal on disk: one line per entry with a checksum, group-committed, rewritten when it grows.

A line is `<crc32, 8 hex> <kind> <json>`. `append` survives a killed process, `durable` a lost host. What the entries
mean is left to `journal_state`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import zlib
from functools import partial
from pathlib import Path

from serving.contract import ContractError, loads
from serving.gateway.errors import GatewayError, unavailable
from serving.gateway.flusher import Flusher
from serving.gateway.journal_entries import ENTRY_KINDS, Cancelled, Entry, Progressed, Settled
from serving.gateway.journal_state import JournalState
from serving.gateway.live_usage import LiveUsage
from serving.gateway.quick_json import encode_message

COMPACT_ABOVE_BYTES = 64 * 1024 * 1024
GATHER_S = 0.004
"""A line waits so long for company on its way to the disk, unless somebody waits for it: engines take longer."""


class JournalError(Exception):
    """The journal cannot be opened as it is; the message says what to do."""


class Journal:
    """One open journal file and the state that its entries add up to."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`, replay it and rewrite it without what is finished. Raises: JournalError."""
        self._path = path
        self._lock_fd = _lock(path.with_suffix(".lock"))
        self.state = _replay(path)
        self._live = LiveUsage(path.with_suffix(".live"))
        self._take_live()
        self._fd = self._rewrite()
        self._live.forget_left()
        self._unsynced: list[asyncio.Future[None]] = []
        self._syncing = False
        self._gathering: asyncio.TimerHandle | None = None
        self._hurried = False
        self._flusher = Flusher()

    def append(self, entry: Entry) -> None:
        """Write one entry through to the operating system. Raises: GatewayError 503 when the disk refuses it."""
        if self._size > COMPACT_ABOVE_BYTES:
            self._compact()
        line = _frame(entry)
        try:
            self._write(line)
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            raise _unwritable(error) from error
        self._size += len(line)
        self.state.apply(entry)
        if type(entry) is Settled:
            self._live.end((entry.record.request_id, entry.record.attempt))
        elif type(entry) is Cancelled:
            self._live.end((entry.request_id, entry.attempt))

    def note(self, key: tuple[str, int], counts: tuple[int, int, int]) -> None:
        """Note the usage of a running attempt where a killed process leaves it, before its tokens are delivered."""
        self._live.note(key, counts)

    async def durable(self) -> None:
        """Return once everything appended so far is on the disk."""
        waiter = self.synced()
        self.hurry()
        await waiter

    def synced(self) -> asyncio.Future[None]:
        """Return what is done once everything appended so far is on the disk; concurrent callers share one flush."""
        waiter = asyncio.get_running_loop().create_future()
        self._unsynced.append(waiter)
        if not self._syncing and self._gathering is None:
            self._gather()
        return waiter

    def hurry(self) -> None:
        """Flush now, or right after the flush under way: somebody waits for it."""
        self._hurried = True
        if not self._syncing:
            self._begin_sync()

    def close(self) -> None:
        """Sync and release the file."""
        self._flusher.close()
        os.fsync(self._fd)
        os.close(self._fd)
        os.close(self._lock_fd)
        self._live.close()

    def _gather(self) -> None:
        self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._begin_sync)

    def _begin_sync(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._syncing = True
        # Not at once: whoever else is done in this turn of the loop shares the flush.
        asyncio.get_running_loop().call_soon(self._sync)

    def _sync(self) -> None:
        waiters, self._unsynced, self._hurried = self._unsynced, [], False
        try:
            self._flusher.flush(self._fd, partial(self._end_sync, waiters))
        except OSError as error:
            self._end_sync(waiters, error)

    def _end_sync(self, waiters: list[asyncio.Future[None]], error: OSError | None) -> None:
        self._syncing = False
        _finish(waiters, None if error is None else _unwritable(error))
        if self._unsynced:
            (self._begin_sync if self._hurried else self._gather)()

    def _take_live(self) -> None:
        """Add what a killed process had noted of its attempts since their last entry."""
        for key in self.state.attempts:
            counts, known = self._live.find_left(key), self.state.progress.get(key)
            if counts is not None and (known is None or counts[2] >= known.completion_tokens):
                self.state.progress[key] = Progressed(*key, *counts)

    def _write(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes written")

    def _compact(self) -> None:
        old = self._fd
        self._fd = self._rewrite()
        os.close(old)

    def _rewrite(self) -> int:
        """Replace the file by the shortest journal of the same state; return its descriptor."""
        fresh = self._path.with_suffix(".new")
        content = b"".join(map(_frame, self.state.entries()))
        fd = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(fd)
        os.replace(fresh, self._path)
        _sync_folder(self._path.parent)
        self._size = len(content)
        return fd


_KINDS = {kind: name.encode() for name, kind in ENTRY_KINDS.items()}


def _frame(entry: Entry) -> bytes:
    text = b"%b %b" % (_KINDS[type(entry)], encode_message(entry))
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _replay(path: Path) -> JournalState:
    state = JournalState()
    if not path.exists():
        return state
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entry = _unframe(line)
        except (ValueError, KeyError) as error:
            if number == len(lines):
                break  # a torn tail: the process died while writing its last line
            text = f"{path} line {number} is damaged ({error}); move the file aside and close its allowances in the hub"
            raise JournalError(text) from error
        state.apply(entry)
    return state


def _unframe(line: bytes) -> Entry:
    checksum, _, text = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise ContractError("bad_checksum", "the checksum does not match")
    kind, _, payload = text.partition(b" ")
    return loads(ENTRY_KINDS[kind.decode()], payload)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalError(f"{path} is held by another gateway; give each gateway its own --journal folder") from error
    return fd


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _finish(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


def _unwritable(error: OSError) -> GatewayError:
    text = f"the gateway cannot write its journal ({error.strerror or error}), so it cannot bill; retry later"
    return unavailable("journal_unavailable", text, retry_after_s=10)
