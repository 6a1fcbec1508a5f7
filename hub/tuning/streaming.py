"""The event stream of a run: states from the outbox and lines from its trainer, replayable from any position.

It leaves HTTP to `api`. A position reads `<event seq>.<attempt>.<line seq>`. Lines that lie further back than a page
can draw are thinned; every held-out loss is told, with the healthy band from there on.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from finetune.spec import Progress
from hub.database import Sessions
from hub.errors import InvalidValueError
from hub.events.tables import Event
from hub.tuning.health import draw_band
from hub.tuning.progress import MAX_CURVE_POINTS, Follower, read_looks
from hub.tuning.states import TERMINAL
from hub.tuning.tables import Run

STREAM_S = 60.0
_PAUSE_S = 0.4
_KEEP_ALIVE_S = 10.0


@dataclass(frozen=True)
class Position:
    """What a listener has seen: events up to `event_seq`, trainer lines up to (`attempt`, `line_seq`)."""

    event_seq: int = 0
    attempt: int = 0
    line_seq: int = 0

    def __str__(self) -> str:
        return f"{self.event_seq}.{self.attempt}.{self.line_seq}"


@dataclass(frozen=True)
class Source:
    """Where a stream reads from; the run was authorised before."""

    sessions: Sessions
    home: Path
    run_id: str
    organisation_id: str


def read_position(text: str) -> Position:
    """Return the position of a Last-Event-ID; empty is the beginning. Raises: InvalidValueError."""
    if not text:
        return Position()
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 16 for part in parts):
        raise InvalidValueError(
            f"Last-Event-ID '{text[:60]}' is not '<event>.<attempt>.<line>'. Send the last id received, or none.",
            f"Last-Event-ID“{text[:60]}”格式有误，请使用最后收到的 id。",
            field="Last-Event-ID",
        )
    return Position(*(int(part) for part in parts))


def stream_run(source: Source, position: Position, *, stream_s: float = STREAM_S) -> Iterator[str]:
    """Yield server-sent events after `position` until the run is over or the time is up; clients reconnect."""
    deadline = time.monotonic() + stream_s
    alive_at = time.monotonic()
    lines = _Lines(source, position)
    yield "retry: 1000\n\n"
    while True:
        over = _is_over(source)
        for seen, text in _read_new(source, position, lines):
            position, alive_at = seen, time.monotonic()
            yield text
        if over or time.monotonic() >= deadline:
            yield f"id: {position}\nevent: end\ndata: {json.dumps({'over': over})}\n\n"
            return
        if time.monotonic() - alive_at >= _KEEP_ALIVE_S:
            alive_at = time.monotonic()
            yield ": alive\n\n"
        time.sleep(_PAUSE_S)


class _Lines:
    """The trainer's lines after a position, with the best held-out loss so far."""

    def __init__(self, source: Source, position: Position) -> None:
        start = (position.attempt, position.line_seq)
        looks = [line for line in read_looks(source.home, source.run_id) if (line.attempt, line.seq) <= start]
        self._best = min((_read_loss(line) for line in looks), default=math.inf)
        self._follower = Follower(source.home, source.run_id, attempt=start[0], seq=start[1])

    def read_new(self) -> Iterator[tuple[Progress, dict[str, Any]]]:
        """Yield each new line with what is sent of it."""
        for line in self._follower.read_new(most=MAX_CURVE_POINTS):
            sent = json.loads(line.to_json())
            if line.metrics.get("valid_loss") is not None:
                self._best = min(self._best, _read_loss(line))
                sent["band"] = draw_band(self._best)
            yield line, sent


def _read_loss(line: Progress) -> float:
    return float(str(line.metrics["valid_loss"]))


def _is_over(source: Source) -> bool:
    with source.sessions.read() as session:
        return session.scalar(select(Run.state).where(Run.id == source.run_id)) in TERMINAL


def _read_new(source: Source, position: Position, lines: _Lines) -> Iterator[tuple[Position, str]]:
    with source.sessions.read() as session:
        events = session.scalars(
            select(Event)
            .where(
                Event.organisation_id == source.organisation_id,
                Event.subject == source.run_id,
                Event.seq > position.event_seq,
            )
            .order_by(Event.seq)
        ).all()
    for event in events:
        position = Position(event.seq, position.attempt, position.line_seq)
        at = event.occurred_at.isoformat()
        yield position, _format(position, "state", {"topic": event.topic, "at": at, **event.payload})
    for line, sent in lines.read_new():
        position = Position(position.event_seq, line.attempt, line.seq)
        yield position, _format(position, "progress", sent)


def _format(position: Position, kind: str, value: object) -> str:
    return f"id: {position}\nevent: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
