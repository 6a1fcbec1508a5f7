"""Durable small files: atomic writes, digests, JSON lines.

Leaves what the files mean to their owners.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from finetune.codec import Json

_BLOCK_BYTES = 1 << 20


def digest_file(path: Path) -> str:
    """Lower-case sha256 hex of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def digest_text(text: str) -> str:
    """Lower-case sha256 hex of UTF-8 text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, text: str) -> str:
    """Write so that a reader sees the old file or the whole new one, also after a crash; returns its sha256."""
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("wb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)
    return digest_text(text)


def sync_file(path: Path) -> None:
    """Force a file that another library wrote onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Force a folder's entries (renames) onto the disk."""
    sync_file(path)


def format_json(value: Json) -> str:
    """Readable JSON with a stable order, so that equal values have equal digests."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False) + "\n"


def read_lines(path: Path) -> Iterator[tuple[int, Json]]:
    """Yield (line number from 1, value) of a JSON-lines file that `check` wrote."""
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            yield number, json.loads(line)


def read_row_numbers(path: Path) -> list[int]:
    """The customer's row number of each line of a file that `check` wrote; empty where it wrote none beside it."""
    import numpy

    numbers = path.with_suffix(".rows.bin")
    found: list[int] = numpy.fromfile(numbers, dtype="<u4").tolist() if numbers.is_file() else []
    return found


def read_row_number(path: Path, line: int) -> int:
    """The customer's row number of one line (from 1) of such a file; the line itself where none is known."""
    numbers = read_row_numbers(path)
    return numbers[line - 1] if line <= len(numbers) else line
