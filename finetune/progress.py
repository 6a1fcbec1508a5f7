"""The append-only progress.jsonl of a run and its final result.json.

Leaves deciding what to report to the run; never receives row text.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from finetune.codec import Json
from finetune.files import write_atomic
from finetune.spec import Event, Progress, Result, RunSpec

BEAT_S = 10.0
"""Whoever takes a silent trainer for stuck waits for many of these."""


def read_clock_us() -> int:
    """Now in µs UTC."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)


class ProgressLog:
    """Appends one flushed line per event; the counters describe the run over all attempts."""

    def __init__(self, out: Path, spec: RunSpec, clock_us: Callable[[], int] = read_clock_us) -> None:
        self._stream = (out / "progress.jsonl").open("a", encoding="utf-8")
        self._spec = spec
        self._clock_us = clock_us
        self._seq = 0
        self._started_s = self._written_s = time.monotonic()
        self.step = 0
        self.tokens = 0
        self.committed_step = 0
        self.device_ms = 0
        self.committed_tokens = 0
        self.committed_device_ms = 0
        self.committing_ms = 0

    def write(self, event: Event, metrics: Mapping[str, Json] | None = None) -> None:
        """Append one line and flush it to the file."""
        self._seq += 1
        line = Progress(
            attempt=self._spec.attempt,
            fence=self._spec.fence,
            seq=self._seq,
            at=self._clock_us(),
            type=event,
            step=self.step,
            tokens=self.tokens,
            committed_step=self.committed_step,
            device_ms=self.device_ms,
            metrics=metrics or {},
            committing_ms=self.committing_ms,
        )
        self._stream.write(line.to_json() + "\n")
        self._stream.flush()
        self._written_s = time.monotonic()

    def beat(self, metrics: Mapping[str, Json]) -> None:
        """Append a STAGE line where none was written for BEAT_S: who watches tells slow from stuck by it."""
        if time.monotonic() - self._written_s >= BEAT_S:
            self.write(Event.STAGE, metrics)

    @contextmanager
    def time_commit(self) -> Iterator[None]:
        """Count what is written to the disk meanwhile apart: a quote says nothing of how long that takes."""
        started_s = time.monotonic()
        yield
        self.committing_ms += round((time.monotonic() - started_s) * 1000)

    def read_now_us(self) -> int:
        """Now in µs UTC by the log's clock."""
        return self._clock_us()

    def measure_elapsed_ms(self) -> int:
        """Wall time of this attempt so far, in ms."""
        return int((time.monotonic() - self._started_s) * 1000)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def write_result(out: Path, result: Result) -> None:
    """Write result.json as the very last file of a run."""
    write_atomic(out / "result.json", result.to_json() + "\n")
