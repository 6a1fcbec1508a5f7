"""Reads progress.jsonl of a run's attempts: the newest line, lines after a position, and curve points for a page.

It leaves writing to the trainer; a half-written last line is left for the next look. What a trainer writes is not
trusted: lines of another attempt are no lines, and figures that are no numbers are told as null.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from finetune.spec import Event, Progress, SpecError
from hub.jobs.trainer import PROGRESS_NAME
from hub.tuning.health import add_bands

_TAIL_BYTES = 32 * 1024
_CHUNK_BYTES = 1024 * 1024
_LOOK_MARK = b'"valid_loss"'
MAX_CURVE_POINTS = 500
SAMPLED_LINES = 4 * MAX_CURVE_POINTS
"""So many lines of a long run say enough for a page."""
_CURVE_FIGURES = ("loss", "valid_loss", "valid_token_accuracy", "grad_norm")
_Item = TypeVar("_Item")


def locate_run(home: Path, run_id: str) -> Path:
    """Return the folder of a run; its attempts are folders named by their number, plans `plan-<n>`."""
    return home / "runs" / run_id


def locate_attempt(home: Path, run_id: str, attempt: int) -> Path:
    """Return the OUT folder of an attempt."""
    return locate_run(home, run_id) / str(attempt)


def read_tail(out: Path) -> list[Progress]:
    """Return the newest lines of an attempt, oldest of them first; empty before the first line."""
    try:
        with (out / PROGRESS_NAME).open("rb") as stream:
            size_bytes = stream.seek(0, 2)
            stream.seek(max(0, size_bytes - _TAIL_BYTES))
            raw = stream.read()
    except FileNotFoundError:
        return []
    lines = raw.split(b"\n")
    whole = lines[:-1] if size_bytes <= _TAIL_BYTES else lines[1:-1]
    return [line for line in (_parse(text) for text in whole) if line is not None and str(line.attempt) == out.name]


def find_commit(home: Path, run_id: str, attempt: int) -> Progress | None:
    """Return the newest line that tells of a commit, of this attempt or an earlier one.

    An attempt that died before it committed anything leaves the commit of the one before it as the newest.
    """
    lines = read_after(home, run_id, attempt=0, seq=0)
    commits = [line for line in lines if line.type is Event.CHECKPOINT and line.attempt <= attempt]
    return commits[-1] if commits else None


def read_after(home: Path, run_id: str, *, attempt: int, seq: int) -> Iterator[Progress]:
    """Yield all lines after (attempt, seq) in order, over all attempts that have a folder."""
    return Follower(home, run_id, attempt=attempt, seq=seq).read_new()


class Follower:
    """Reads what a run's attempts appended since the last look; a long run is read once, not at every look."""

    def __init__(self, home: Path, run_id: str, *, attempt: int = 0, seq: int = 0) -> None:
        self._folder = locate_run(home, run_id)
        self._seen = (attempt, seq)
        self._places: dict[int, int] = {}

    def read_new(self, most: int | None = None) -> Iterator[Progress]:
        """Yield the lines after those seen; with `most` about so many, each held-out loss among them."""
        stride = max(1, self._count_new() // most) if most else 1
        skipped: tuple[int, bytes] | None = None
        for index, (attempt, raw) in enumerate(self._list_raw()):
            skipped = (attempt, raw) if index % stride and _LOOK_MARK not in raw else None
            if skipped is None:
                yield from self._take(attempt, raw)
        if skipped is not None:
            yield from self._take(*skipped)

    def _take(self, attempt: int, raw: bytes) -> Iterator[Progress]:
        line = _parse(raw)
        if line is not None and line.attempt == attempt and (attempt, line.seq) > self._seen:
            self._seen = (attempt, line.seq)
            yield line

    def _list_attempts(self) -> Iterator[tuple[int, Path]]:
        numbers = sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdecimal())
        for number in numbers:
            path = self._folder / str(number) / PROGRESS_NAME
            if number >= self._seen[0] and path.is_file():
                yield number, path

    def _list_raw(self) -> Iterator[tuple[int, bytes]]:
        for number, path in self._list_attempts():
            with path.open("rb") as stream:
                place = stream.seek(self._places.get(number, 0))
                for raw in stream:
                    if not raw.endswith(b"\n"):
                        break
                    place += len(raw)
                    self._places[number] = place
                    yield number, raw

    def _count_new(self) -> int:
        """Lines that were not read yet; those that a listener saw before it came back are no history to thin."""
        total = 0
        for number, path in self._list_attempts():
            with path.open("rb") as stream:
                place = stream.seek(self._places.get(number, 0))
                while chunk := stream.read(_CHUNK_BYTES):
                    total += chunk.count(b"\n")
            total -= self._seen[1] if place == 0 and number == self._seen[0] else 0
        return total


def read_looks(home: Path, run_id: str) -> list[Progress]:
    """Return the lines that tell of a held-out loss."""
    lines = Follower(home, run_id).read_new(most=1)
    return [line for line in lines if line.metrics.get("valid_loss") is not None]


def read_curve(home: Path, run_id: str) -> list[dict[str, Any]]:
    """Return about 500 points at most, one a step: {step, tokens, device_ms, band} and what there is of _CURVE_FIGURES.

    Evenly thinned with every held-out loss and the last point kept; of a step that was trained again the newer one
    counts. A loss that is no number is None; `band` is the healthy range from the first held-out loss on.
    """
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for line in Follower(home, run_id).read_new(most=SAMPLED_LINES):
        figures = {name: line.metrics[name] for name in _CURVE_FIGURES if name in line.metrics}
        if not {"loss", "valid_loss"} & set(figures):
            continue
        attempt, point = found.get(line.step, (0, {}))
        place = {"step": line.step, "tokens": line.tokens, "device_ms": line.device_ms}
        found[line.step] = (line.attempt, (point if attempt == line.attempt else {}) | place | figures)
    points = [found[step][1] for step in sorted(found)]
    add_bands(points)
    return thin(points, MAX_CURVE_POINTS, keep=lambda point: point.get("valid_loss") is not None)


def thin(items: Sequence[_Item], most: int, *, keep: Callable[[_Item], bool]) -> list[_Item]:
    """Return about `most` items in order: those to keep, the last one, and others evenly between them."""
    if len(items) <= most:
        return list(items)
    stride = -(-len(items) // most)
    last = len(items) - 1
    return [item for index, item in enumerate(items) if index % stride == 0 or index == last or keep(item)]


def _parse(raw: bytes) -> Progress | None:
    """A line torn by a crash is no progress; the trainer's next line counts."""
    try:
        line = Progress.from_json(raw.decode("utf-8"))
    except (SpecError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return replace(line, metrics=_keep_sound(line.metrics))


def _keep_sound(value: Any) -> Any:
    """JSON knows no NaN and no infinity: such a figure is told as null."""
    if isinstance(value, dict):
        return {name: _keep_sound(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_keep_sound(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
