"""Reads an export's files and says what canonical JSON and a row's digest are. It leaves judging them to the checks."""

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

FORMAT = "guanmo-audit-export/1"
ORIGIN = "guanmo/audit"
Row = dict[str, Any]


class Export:
    """The files of an export, read once; `rows(name)` are the parsed lines of `name.jsonl`."""

    def __init__(self, place: Path) -> None:
        self.contents = _read_files(place)
        self.manifest: Row = json.loads(self.contents.get("manifest.json", b"{}"))
        self._rows: dict[str, list[Row]] = {}

    def rows(self, name: str) -> list[Row]:
        """Return the lines of a file."""
        if name not in self._rows:
            text = self.contents.get(f"{name}.jsonl", b"").decode()
            # Not `splitlines`: it cuts at U+2028 too, which may stand inside a text.
            self._rows[name] = [json.loads(line) for line in text.split("\n") if line]
        return self._rows[name]

    def annexes(self, name: str) -> dict[str, Row]:
        """Return the annexes of a file by their id."""
        return {row["annex"]["id"]: row["annex"] for row in self.rows(name) if row["annex"]}

    def events(self, topic: str) -> list[Row]:
        """Return the event rows of a topic, in order."""
        return [row["row"] for row in self.rows("events") if row["row"]["topic"] == topic]

    def within(self, moment: int) -> bool:
        """Say whether a time (µs UTC) lies in the period."""
        return bool(self.manifest["start_us"] <= moment < self.manifest["end_us"])


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def read_note(note: str) -> Row:
    """Return what a checkpoint's note says: size, root, chain, time; whether it is signed is another question.

    Raises:
        ValueError: out of shape.
    """
    origin, size, root, chain, time = note.partition("\n\n")[0].split("\n")
    if origin != ORIGIN:
        raise ValueError(f"checkpoint of {origin!r}, not of {ORIGIN!r}")
    return {"size": int(size), "root": base64.b64decode(root).hex(), "chain": chain[6:], "time": int(time[5:])}


def _read_files(place: Path) -> dict[str, bytes]:
    if place.is_dir():
        return {path.name: path.read_bytes() for path in sorted(place.iterdir()) if path.is_file()}
    with zipfile.ZipFile(place) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}
