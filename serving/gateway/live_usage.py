"""The usage of running attempts in memory that outlives a killed process, written before each chunk goes out.

It makes the bill of a killed gateway exact without a write for each token; what a lost host leaves is in the journal,
at most half a second old. When an attempt ends is told by `journal_file`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path

MAX_ATTEMPTS = 16_384
_TAG_BYTES = 16
_ROW_WORDS = 3
_TAGS_BYTES = MAX_ATTEMPTS * _TAG_BYTES
_SIZE_BYTES = _TAGS_BYTES + MAX_ATTEMPTS * _ROW_WORDS * 8
Key = tuple[str, int]
Counts = tuple[int, int, int]


class LiveUsage:
    """Prompt, cached and completion tokens of running attempts; one more than 16,384 has none."""

    def __init__(self, path: Path) -> None:
        """Open the file and remember what a former process left in it."""
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _SIZE_BYTES)
            self._map = mmap.mmap(fd, _SIZE_BYTES)
        finally:
            os.close(fd)
        self._words = memoryview(self._map)[_TAGS_BYTES:].cast("q")
        self._rows: dict[Key, int] = {}
        self._free: list[int] = []
        self._unused = 0
        self._left = dict(self._read())

    def find_left(self, key: Key) -> Counts | None:
        """Return what a former process had noted of an attempt."""
        return self._left.get(_tag(key))

    def forget_left(self) -> None:
        """Empty the file once the journal has what was in it."""
        if self._left:
            self._map[:_TAGS_BYTES] = bytes(_TAGS_BYTES)
            self._left.clear()

    def note(self, key: Key, counts: Counts) -> None:
        """Note what a running attempt has used so far; the first time it gets a row."""
        row = self._rows.get(key)
        if row is None:
            self._begin(key, counts)
        else:
            self._write(row, counts)

    def end(self, key: Key) -> None:
        """Take the row back: the journal has the rest."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._map[row * _TAG_BYTES : (row + 1) * _TAG_BYTES] = bytes(_TAG_BYTES)
            self._free.append(row)

    def close(self) -> None:
        """Release the file."""
        self._words.release()
        self._map.close()

    def _begin(self, key: Key, counts: Counts) -> None:
        if self._free:
            row = self._free.pop()
        elif self._unused < MAX_ATTEMPTS:
            row, self._unused = self._unused, self._unused + 1
        else:
            return
        self._rows[key] = row
        self._write(row, counts)
        # The tag last: a row with one counts.
        self._map[row * _TAG_BYTES : (row + 1) * _TAG_BYTES] = _tag(key)

    def _write(self, row: int, counts: Counts) -> None:
        at, words = row * _ROW_WORDS, self._words
        words[at], words[at + 1], words[at + 2] = counts

    def _read(self) -> list[tuple[bytes, Counts]]:
        tags, found = self._map[:_TAGS_BYTES], []
        if not any(tags):
            return []
        for row in range(MAX_ATTEMPTS):
            tag = tags[row * _TAG_BYTES : (row + 1) * _TAG_BYTES]
            if any(tag):
                prompt, cached, completion = self._words[row * _ROW_WORDS : (row + 1) * _ROW_WORDS]
                found.append((tag, (prompt, cached, completion)))
        return found


def _tag(key: Key) -> bytes:
    return hashlib.blake2b(f"{key[0]}-{key[1]}".encode(), digest_size=_TAG_BYTES).digest()
