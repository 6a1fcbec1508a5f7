"""Kills a process of its own at a named place of a step: before one statement, before the commit, or right after it.

It leaves the steps to `story` and judging the outcome to the test.
"""

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from psycopg import Cursor
from sqlalchemy import event, make_url

from hub.database import Sessions, _connect_postgresql, open_sessions
from tests.faults.ground import Ground
from tests.faults.story import Step
from tests.hub.money.market import Market

COMMIT = "COMMIT"
FAILED = 70


class Place:
    """Counts the statements and commits of a step, and ends the process at the one asked for (None: never)."""

    def __init__(self, stop_at: int | None) -> None:
        self.names: list[str] = []
        self._stop_at = stop_at

    def reach(self, name: str) -> None:
        """Be at a place; the process ends here where this is the one."""
        if self._stop_at == len(self.names):
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)


class Range:
    """One engine aimed at one database after another, so that hundreds of kills compile their statements once."""

    def __init__(self, ground: Ground, url: str) -> None:
        self._ground, self._place, self._target = ground, Place(None), url
        self.sessions: Sessions = open_sessions(url)
        self.market: Market = replace(ground.pattern, sessions=self.sessions, actors=dict(ground.pattern.actors))
        if ground.kind == "postgresql":
            event.remove(self.sessions.engine, "do_connect", _connect_postgresql)  # the first one to connect wins
        event.listen(self.sessions.engine, "do_connect", self._aim)
        event.listen(self.sessions.engine, "connect", self._watch)
        if ground.kind == "postgresql":
            event.listen(self.sessions.engine, "commit", lambda _: self._hear(COMMIT))

    def aim(self, url: str) -> Market:
        """Return the market on another database."""
        self.sessions.close()
        self._target, self._place = url, Place(None)
        return self.market

    def list_places(self, url: str, step: Step) -> list[str]:
        """Run a step to its end and return its places in order; the last one lies behind the last commit."""
        step(self.aim(url))
        return [*self._place.names, "end"]

    def die_at(self, url: str, step: Step, number: int) -> None:
        """Run a step in a process of its own that is killed at a place of it."""
        self.sessions.close()
        child = os.fork()
        if child == 0:
            try:
                self._target, self._place = url, Place(number)
                step(self.market)
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(FAILED)  # not reached unless the step failed by itself
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"{step.__name__} failed before place {number}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    def close(self) -> None:
        """Close the engine."""
        self.sessions.close()

    def _aim(self, dialect: Any, record: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        database = make_url(self._target).database
        if self._ground.kind == "sqlite":
            positional[0] = database
            return None
        named["dbname"] = database
        return _connect_postgresql(dialect, record, positional, named)

    def _watch(self, connection: Any, _record: Any) -> None:
        """Hear of every statement below SQLAlchemy, which the ledger goes around."""
        if self._ground.kind == "sqlite":
            connection.set_trace_callback(self._hear)
            return
        connection.cursor_factory = _tell(self._hear, connection.cursor_factory)
        # These take no cursor.
        connection.call = self._tell_before(connection.call, "CALL ")
        connection.control = self._tell_before(connection.control, "")

    def _tell_before(self, run: Callable[..., Any], prefix: str) -> Callable[..., Any]:
        def told(name: str, *values: Any) -> Any:
            self._hear(prefix + name)
            return run(name, *values)

        return told

    def _hear(self, statement: str) -> None:
        words = statement.split()
        self._place.reach(" ".join(words[:3] if words[0] in ("INSERT", "DELETE") else words[:2])[:60])


def _tell(hear: Callable[[str], None], plain: type[Cursor[Any]]) -> type[Cursor[Any]]:
    """Return psycopg's cursor that says every statement before it is sent."""

    class Telling(plain):  # type: ignore[misc, valid-type]  # whichever the driver uses
        def execute(self, query: Any, *arguments: Any, **named: Any) -> Any:
            hear(str(query))
            return super().execute(query, *arguments, **named)

        def executemany(self, query: Any, *arguments: Any, **named: Any) -> Any:
            hear(str(query))
            return super().executemany(query, *arguments, **named)

    return Telling


def share_out(numbers: Sequence[int], work: Callable[[int], float], *, workers: int) -> float:
    """Do `work` for every number, in several processes at once if more than one is wanted; return its largest answer.

    Raises:
        AssertionError: one of them failed; its own words stand on the error output.
    """
    if workers == 1:
        return max((work(number) for number in numbers), default=0.0)
    reader, writer = os.pipe()
    children = [os.fork() or _work_and_leave(numbers[turn::workers], work, writer) for turn in range(workers)]
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answers = [float(line) for line in pipe]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * workers
    return max(answers)


def _work_and_leave(numbers: Sequence[int], work: Callable[[int], float], pipe: int) -> int:
    status = FAILED
    try:
        worst = max((work(number) for number in numbers), default=0.0)
        os.write(pipe, f"{worst}\n".encode())
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)
