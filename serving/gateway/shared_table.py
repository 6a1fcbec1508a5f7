"""Counters that all processes of one gateway share: a memory-mapped file of fixed rows, each under its own lock.

A row belongs to a name (a key, an organisation) and holds what it did in the last minute, how many of its requests run
in which process and the tokens set aside for them, and the tokens that it was served. What the numbers allow is left to
`limits` and `fair_share`.

A killed process loses its locks with its life; whoever takes its seat clears its columns of what runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOW_S = 60.0
MAX_ROWS = 8192
MAX_PROCESSES = 32
# An event counts for 60 to 60.5 s, so no minute ever holds more than its limit.
_PARTS_PER_S = 2
_PARTS = int(WINDOW_S) * _PARTS_PER_S + 1
_RING = 128
_IDLE_S = 2 * WINDOW_S
_PROBES = 64
_TAG_BYTES = 16
_WORD = 8
# Words of a row: last use, tokens served, running requests and their tokens by process, then two windows.
_USED_AT, _SERVED, _RUNNING = 0, 1, 2
_RESERVED = _RUNNING + MAX_PROCESSES
REQUESTS = _RESERVED + MAX_PROCESSES
_WINDOW_WORDS = 2 + _RING
TOKENS = REQUESTS + _WINDOW_WORDS
_ROW_WORDS = TOKENS + _WINDOW_WORDS
_TAGS_BYTES = MAX_ROWS * _TAG_BYTES
_SIZE_BYTES = _TAGS_BYTES + MAX_ROWS * _ROW_WORDS * _WORD
_INSERTING, _SEATS, _ROWS = 0, 1, 1 + MAX_PROCESSES
# A release with other rows has another file: it would misread these.
FILE_NAME = f"load-{_ROW_WORDS}.table"


class TableFullError(Exception):
    """More names were active within two minutes, or more processes run, than the table holds."""


class SharedTable:
    """The table at `path`, or one of this process alone. `seat` numbers the processes from 0."""

    def __init__(self, path: Path | None = None, *, alone: bool = False) -> None:
        """Open or create the table and take a seat in it; `alone` needs no locks. Raises: TableFullError."""
        self._fd = -1
        if path is None:
            self._map = mmap.mmap(-1, _SIZE_BYTES)
        else:
            self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            if os.fstat(self._fd).st_size != _SIZE_BYTES:
                os.ftruncate(self._fd, _SIZE_BYTES)
            self._map = mmap.mmap(self._fd, _SIZE_BYTES)
        self._words = memoryview(self._map)[_TAGS_BYTES:].cast("q")
        self._rows: dict[str, Row] = {}
        self.seat = self._take_seat()
        self._locks = self._fd >= 0 and not alone

    @contextmanager
    def row(self, name: str, now_s: float) -> Iterator[Row]:
        """Lock the row of `name` and yield it. Raises: TableFullError."""
        row = self.lock(name, now_s)
        try:
            yield row
        finally:
            self.unlock(row)

    def lock(self, name: str, now_s: float) -> Row:
        """Return the row of `name`, locked until `unlock`. Raises: TableFullError."""
        while True:
            row = self._rows.get(name) or self._find(name, now_s)
            if self._locks:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _ROWS + row.number)
            at = row.number * _TAG_BYTES
            if self._map[at : at + _TAG_BYTES] == row.tag:
                row.use(now_s)
                return row
            del self._rows[name]  # given to another name meanwhile
            self._release(row.number)

    def unlock(self, row: Row) -> None:
        """Let others at the row."""
        self._release(row.number)

    def close(self) -> None:
        """Leave; the seat is free again."""
        self._words.release()
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)

    def _release(self, number: int) -> None:
        if self._locks:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _ROWS + number)

    def _take_seat(self) -> int:
        """Return the first free column, emptied of what a killed process left in it."""
        if self._fd < 0:
            return 0
        for seat in range(MAX_PROCESSES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SEATS + seat)
            except OSError:
                continue
            for number in range(MAX_ROWS):
                if self._map[number * _TAG_BYTES : (number + 1) * _TAG_BYTES] != bytes(_TAG_BYTES):
                    for column in (_RUNNING, _RESERVED):
                        self._words[number * _ROW_WORDS + column + seat] = 0
            return seat
        raise TableFullError(f"{MAX_PROCESSES} processes share this gateway already; that is the limit")

    def _find(self, name: str, now_s: float) -> Row:
        """Return the row of a name, made if need be out of one that nobody used for two minutes."""
        tag = hashlib.blake2b(name.encode(), digest_size=_TAG_BYTES).digest()
        first = int.from_bytes(tag[:4]) % MAX_ROWS
        numbers = [(first + step) % MAX_ROWS for step in range(_PROBES)]
        if self._locks:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _INSERTING)
        try:
            tags = {number: self._map[number * _TAG_BYTES : (number + 1) * _TAG_BYTES] for number in numbers}
            found = next((number for number in numbers if tags[number] == tag), None)
            if found is None:
                found = next((number for number in numbers if self._is_idle(number, tags[number], now_s)), None)
                if found is None:
                    raise TableFullError(f"more than {MAX_ROWS} keys and firms are active; that is the limit")
                self._clear(found, tag)
        finally:
            if self._locks:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _INSERTING)
        row = self._rows[name] = Row(self._words, found, tag, seat=self.seat, alone=not self._locks)
        return row

    def _is_idle(self, number: int, tag: bytes, now_s: float) -> bool:
        at = number * _ROW_WORDS
        running = self._words[at + _RUNNING : at + _RUNNING + MAX_PROCESSES]
        # A later time than now is from before the machine's last start.
        used_s = self._words[at + _USED_AT]
        return tag == bytes(_TAG_BYTES) or (not any(running) and not 0 <= now_s - used_s <= _IDLE_S)

    def _clear(self, number: int, tag: bytes) -> None:
        if self._locks:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _ROWS + number)
        at = number * _ROW_WORDS
        self._words[at : at + _ROW_WORDS] = memoryview(bytes(_ROW_WORDS * _WORD)).cast("q")
        self._map[number * _TAG_BYTES : (number + 1) * _TAG_BYTES] = tag
        self._release(number)


class Row:
    """One row while it is locked, from `use` on. A process that is `alone` looks at no columns but its own."""

    __slots__ = ("_alone", "_at", "_part", "_running", "_words", "number", "tag")

    def __init__(self, words: memoryview[int], number: int, tag: bytes, *, seat: int, alone: bool) -> None:
        self.number = number
        self.tag = tag
        self._words = words
        self._alone = alone
        self._at = number * _ROW_WORDS
        self._running = self._at + _RUNNING + seat
        self._part = 0

    def use(self, now_s: float) -> None:
        """Begin a moment of use."""
        self._words[self._at + _USED_AT] = int(now_s)
        self._part = int(now_s * _PARTS_PER_S)

    @property
    def running(self) -> int:
        """Return the requests that run now, in all processes."""
        return self._words[self._running] if self._alone else self._sum(_RUNNING)

    def run(self, change: int) -> None:
        """Count requests of this process that began (1) or ended (-1)."""
        self._words[self._running] = max(0, self._words[self._running] + change)

    @property
    def reserved(self) -> int:
        """Return the tokens set aside for the requests that run now, in all processes."""
        return self._words[self._running + MAX_PROCESSES] if self._alone else self._sum(_RESERVED)

    def reserve(self, change: int) -> None:
        """Set tokens aside for a request of this process, or (below 0) give them back."""
        at = self._running + MAX_PROCESSES
        self._words[at] = max(0, self._words[at] + change)

    @property
    def served(self) -> int:
        """Return the tokens served, as `fair_share` weighs them."""
        return self._words[self._at + _SERVED]

    @served.setter
    def served(self, tokens: int) -> None:
        self._words[self._at + _SERVED] = tokens

    def used(self, window: int) -> int:
        """Return what was counted in a window (`REQUESTS` or `TOKENS`) within the last minute."""
        at = self._at + window
        return self._words[at + 1] if self._words[at] == self._part else self._turn(at)

    def add(self, window: int, amount: int) -> None:
        """Count an amount now."""
        total, at = self.used(window), self._at + window
        self._words[at + 2 + self._part % _RING] += amount
        self._words[at + 1] = total + amount

    def frees_in_s(self, window: int, amount: int, now_s: float) -> float:
        """Return when at least `amount` of what a window counts has left it."""
        self.used(window)
        at, part = self._at + window + 2, self._part - _PARTS
        while amount > 0 and part < self._part:
            part += 1
            amount -= self._words[at + part % _RING]
        return max(0.0, (part + _PARTS) / _PARTS_PER_S - now_s)

    def _sum(self, column: int) -> int:
        at = self._at + column
        return sum(self._words[at : at + MAX_PROCESSES])

    def _turn(self, at: int) -> int:
        """Empty the parts that left the window since it was last looked at; return the total, added up anew."""
        words, last = self._words, self._words[at]
        if not 0 <= self._part - last < _RING:
            words[at + 2 : at + 2 + _RING] = memoryview(bytes(_RING * _WORD)).cast("q")
        else:
            for part in range(last + 1, self._part + 1):
                words[at + 2 + part % _RING] = 0
            for part in range(max(self._part - _RING + 1, last - _PARTS + 1), self._part - _PARTS + 1):
                words[at + 2 + part % _RING] = 0
        words[at] = self._part
        words[at + 1] = sum(words[at + 2 : at + 2 + _RING])
        return words[at + 1]
