"""Kills a process of its own at a named place of a step: before one statement, before the commit, or right after it.

It leaves the steps to `story` and judging the outcome to the test.
"""

import os
import signal
from typing import Any

from sqlalchemy import event

from hub.database import Sessions
from tests.faults.ground import Ground
from tests.faults.story import Step

COMMIT = "COMMIT"


class Place:
    """Counts the statements and commits of a step, and ends the process at the one asked for (None: never)."""

    def __init__(self, stop_at: int | None) -> None:
        self.names: list[str] = []
        self._stop_at = stop_at

    def watch(self, sessions: Sessions) -> None:
        """Count on every connection of these sessions from now on."""
        event.listen(sessions.engine, "before_cursor_execute", self._before_statement)
        event.listen(sessions.engine, "commit", lambda connection: self.reach(COMMIT))

    def reach(self, name: str) -> None:
        """Be at a place; the process ends here where this is the one."""
        if self._stop_at == len(self.names):
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)

    def _before_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        self.reach(" ".join(words[:3] if words[0] in ("INSERT", "DELETE") else words[:2])[:60])


def list_places(ground: Ground, url: str, step: Step) -> list[str]:
    """Run a step to its end and return its places in order; the last one lies behind the last commit."""
    place = Place(None)
    with ground.market(url) as market:
        place.watch(market.sessions)
        step(market)
    return [*place.names, "end"]


def die_at(ground: Ground, url: str, step: Step, number: int) -> None:
    """Run a step in a process of its own that is killed at a place of it."""
    child = os.fork()
    if child == 0:
        place = Place(number)
        try:
            with ground.market(url) as market:
                place.watch(market.sessions)
                step(market)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(70)  # not reached unless the step failed by itself
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{step.__name__} failed before place {number}"
    assert os.WTERMSIG(status) == signal.SIGKILL
