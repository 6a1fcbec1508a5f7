"""Reads progress.jsonl of a run's attempts: the newest line, lines after a position, and curve points for a page.

It leaves writing to the trainer; a half-written last line is left for the next look.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from finetune.spec import Event, Progress, SpecError
from hub.jobs.trainer import PROGRESS_NAME

_TAIL_BYTES = 32 * 1024
MAX_CURVE_POINTS = 500


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
    return [line for line in (_parse(text) for text in whole) if line is not None]


def find_commit(home: Path, run_id: str, attempt: int) -> Progress | None:
    """Return the newest line that tells of a commit, of this attempt or an earlier one.

    An attempt that died before it committed anything leaves the commit of the one before it as the newest.
    """
    for number in range(attempt, 0, -1):
        commits = [line for line in _read_all(locate_attempt(home, run_id, number)) if line.type is Event.CHECKPOINT]
        if commits:
            return commits[-1]
    return None


def read_after(home: Path, run_id: str, *, attempt: int, seq: int) -> Iterator[Progress]:
    """Yield all lines after (attempt, seq) in order, over all attempts that have a folder."""
    folder = locate_run(home, run_id)
    numbers = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    for number in numbers:
        if number < attempt:
            continue
        for line in _read_all(folder / str(number)):
            if (line.attempt, line.seq) > (attempt, seq):
                yield line


def read_curve(home: Path, run_id: str) -> list[dict[str, object]]:
    """Return at most 500 points {step, loss, valid_loss, tokens, device_ms}, evenly thinned, last point kept."""
    points: list[dict[str, object]] = []
    for line in read_after(home, run_id, attempt=0, seq=0):
        found = {name: line.metrics[name] for name in ("loss", "valid_loss") if name in line.metrics}
        if found:
            points.append({"step": line.step, "tokens": line.tokens, "device_ms": line.device_ms, **found})
    if len(points) <= MAX_CURVE_POINTS:
        return points
    stride = len(points) / (MAX_CURVE_POINTS - 1)
    return [points[int(index * stride)] for index in range(MAX_CURVE_POINTS - 1)] + [points[-1]]


def _read_all(out: Path) -> Iterator[Progress]:
    try:
        text = (out / PROGRESS_NAME).read_bytes()
    except FileNotFoundError:
        return
    for raw in text.split(b"\n")[:-1]:
        line = _parse(raw)
        if line is not None:
            yield line


def _parse(raw: bytes) -> Progress | None:
    """A line torn by a crash is no progress; the trainer's next line counts."""
    try:
        return Progress.from_json(raw.decode("utf-8"))
    except (SpecError, UnicodeDecodeError, json.JSONDecodeError):
        return None
