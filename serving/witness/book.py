"""The witness's two files: one row per ended request, appended, and counts of running ones that outlive a kill -9.

`<name>.jsonl` is append-only. `<name>.running` holds one slot of 512 bytes per running request, written in place: two
counters and who is asked; the kernel keeps what was written when the process is killed. Counting is left to
`middleware`, sending the rows to the hub to the pool controller.
"""

import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

SLOT_BYTES = 512
_COUNTS = struct.Struct("<4q")
_GATEWAY_ID = re.compile(r"(req_[0-9a-f]{32})-([0-9]{1,3})")
_MOST_CHARS = 100


@dataclass(frozen=True)
class Asked:
    """Whose request it is: the gateway's id and attempt, and the money it runs on; other callers have no account."""

    request_id: str
    attempt: int = 0
    allowance_id: str | None = None
    key_id: str | None = None
    version_id: str | None = None

    @classmethod
    def of_headers(cls, request_id: str, account: str) -> "Asked":
        """Read `x-request-id` (`req_<hex>-<attempt>`) and `x-guanmo-account` (allowance, key, version)."""
        match = _GATEWAY_ID.fullmatch(request_id)
        parts = account.split(" ")
        if match is None or len(parts) != 3 or max(map(len, parts)) > _MOST_CHARS:
            return cls(request_id[:_MOST_CHARS])
        return cls(match[1], int(match[2]), *parts)


@dataclass(frozen=True)
class Tokens:
    """What the engine counted, and of the prompt what an answer tells: once for all choices, and its cached part."""

    prompt: int = 0
    completion: int = 0
    told_prompt: int = 0
    told_cached: int = 0


@dataclass(frozen=True)
class Row:
    """One ended request; `seq` counts the rows of a file from 1. `cut`: the engine died while it ran."""

    seq: int
    request_id: str
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    told_prompt_tokens: int
    told_cached_tokens: int
    allowance_id: str | None = None
    key_id: str | None = None
    version_id: str | None = None
    cut: bool = False


def running_path(path: Path) -> Path:
    """Return the file of running counts beside a file of rows."""
    return path.with_suffix(".running")


class WitnessBook:
    """The writing side of one engine process. The files must be new: each start of an engine has its own."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._rows = os.open(path, flags | os.O_APPEND, 0o600)
        self._slots = os.open(running_path(path), flags, 0o600)
        self._seq = 0
        self._used = 0
        self._free: list[int] = []

    def open_slot(self, asked: Asked) -> int:
        """Note a request as running; returns its slot."""
        slot = self._free.pop() if self._free else self._used
        self._used = max(self._used, slot + 1)
        text = json.dumps(asdict(asked)).encode()
        os.pwrite(self._slots, (_COUNTS.pack(0, 0, 0, 0) + text).ljust(SLOT_BYTES), slot * SLOT_BYTES)
        return slot

    def note(self, slot: int, tokens: Tokens) -> None:
        """Note how far a running request is."""
        counts = (tokens.prompt, tokens.completion, tokens.told_prompt, tokens.told_cached)
        os.pwrite(self._slots, _COUNTS.pack(*counts), slot * SLOT_BYTES)

    def close_slot(self, slot: int, asked: Asked, tokens: Tokens) -> None:
        """Append the row of an ended request and free its slot."""
        self._seq += 1
        os.write(self._rows, _encode(_row_of(self._seq, asked, tokens)))
        os.pwrite(self._slots, b" " * SLOT_BYTES, slot * SLOT_BYTES)
        self._free.append(slot)


def read_rows(path: Path, offset: int) -> Iterator[tuple[Row, int]]:
    """Yield the whole rows from a byte offset, each with the offset after it. Raises: OSError."""
    with path.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield Row(**json.loads(line)), offset


def close_dead(path: Path) -> int:
    """Append what was running when the engine of these files died; returns how many. Safe to repeat after a crash."""
    slots = running_path(path)
    if not slots.exists():
        return 0
    last, known = 0, set()
    for row, _offset in read_rows(path, 0):
        last = row.seq
        known.add((row.request_id, row.attempt))
    cut = [row for row in _read_running(slots) if row.attempt == 0 or (row.request_id, row.attempt) not in known]
    lines = b"".join(_encode(replace(row, seq=last + 1 + index)) for index, row in enumerate(cut))
    with path.open("r+b") as stream:
        stream.seek(_end_of_rows(path))
        stream.truncate()  # half a line, cut off by the kill
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())
    slots.unlink()
    return len(cut)


def _read_running(slots: Path) -> Iterator[Row]:
    raw = slots.read_bytes()
    for start in range(0, len(raw) - SLOT_BYTES + 1, SLOT_BYTES):
        piece = raw[start : start + SLOT_BYTES]
        if piece.strip():
            asked = Asked(**json.loads(piece[_COUNTS.size :]))
            yield replace(_row_of(0, asked, Tokens(*_COUNTS.unpack_from(piece))), cut=True)


def _end_of_rows(path: Path) -> int:
    end = 0
    for _row, offset in read_rows(path, 0):
        end = offset
    return end


def _row_of(seq: int, asked: Asked, tokens: Tokens) -> Row:
    counts = (tokens.prompt, tokens.completion, tokens.told_prompt, tokens.told_cached)
    account = (asked.allowance_id, asked.key_id, asked.version_id)
    return Row(seq, asked.request_id, asked.attempt, *counts, *account)


def _encode(row: Row) -> bytes:
    return (json.dumps(asdict(row), separators=(",", ":")) + "\n").encode()
