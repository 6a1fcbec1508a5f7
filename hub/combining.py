"""Lets threads of one process that wait for the same thing share one transaction, and so one flush.

Whoever finds nobody ahead leads: it does its own work at once. Who comes before it commits is taken along; who comes
later waits, and the first of them leads next. Nobody waits for company. Work of a kind that is done for many at once
(`Joint`) is: the leader's with that of whoever came while its transaction began, and later ones' likewise.

It leaves the transaction to `hub.database` and knows threads and turns only.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from threading import Lock
from time import monotonic
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

MOST = 16
"""So many pieces of work share a transaction at most, because their locks last until its end."""
LONGEST_S = 0.01
"""Who leads takes nobody along after so long; it looks between parts, of which each is done whole."""


class Joint(ABC):
    """Work that can be done together with others' of its kind in the same line; it looks at no context variable.

    Called, it does its own alone, and wholly or not at all: where it raises a refusal (`GuanmoError`), nothing is
    written, so it needs no savepoint.
    """

    @abstractmethod
    def __call__(self, session: Session) -> Any:
        """Do this one's work and return its answer."""

    @abstractmethod
    def join(self, connection: Connection, others: Sequence[Any]) -> Sequence[Any] | None:
        """Do it with the others' and return all answers, its own first.

        None: something is in the way of one of them; nothing is written, and each is to be called alone.
        """


class Turn:
    """One piece of work in line, and in the end its answer or its error.

    The work runs in the context (context variables) of the thread that brought it, though another may run it.
    """

    def __init__(self, work: Callable[[Session], Any]) -> None:
        self.settled = False
        self.joint = work if isinstance(work, Joint) else None
        self._work, self._context = work, copy_context()
        self._answer: Any = None
        self._error: BaseException | None = None
        self._woken = Lock()
        self._woken.acquire()

    def goes_with(self, other: "Turn") -> bool:
        """Say whether its work and another's can be done together."""
        return self.joint is not None and type(self.joint) is type(other.joint)

    def attempt(self, session: Session) -> Any:
        """Do the work and return its answer, which counts only once it is given to `answer`."""
        return self._context.run(self._work, session)

    def answer(self, answer: Any) -> None:
        """Settle it: what the work returned is committed."""
        self._answer, self.settled = answer, True

    def fail(self, error: BaseException) -> None:
        """Settle it with what its thread is to raise."""
        self._error, self.settled = error, True

    def wait(self) -> None:
        """Return once it is settled, or first in line."""
        self._woken.acquire()

    def wake(self) -> None:
        """Let its thread go on."""
        self._woken.release()

    def result(self) -> Any:
        """Return the answer, or raise the error."""
        if self._error is not None:
            raise self._error
        return self._answer


class Lines:
    """Who waits for whom, by the name of what they wait for.

    `write` does the work of the turns that it is handed, part by part, and settles them: first the leader's, then that
    of those who wait. What stands in one part can be done together.
    """

    def __init__(self, write: Callable[[Turn, Iterator[list[Turn]]], None]) -> None:
        self._write = write
        self._lock = Lock()
        self._waiting: dict[str, deque[Turn]] = {}

    def run(self, name: str, work: Callable[[Session], Any]) -> Any:
        """Return what the work returned, once it is committed; raise what it raised."""
        turn = Turn(work)
        if not self._lead(name, turn):
            turn.wait()
        if not turn.settled:
            self._serve(name, turn)
        return turn.result()

    def _lead(self, name: str, turn: Turn) -> bool:
        """Say whether nobody is ahead; else stand in line."""
        with self._lock:
            line = self._waiting.get(name)
            if line is None:
                self._waiting[name] = deque()
            else:
                line.append(turn)
            return line is None

    def _serve(self, name: str, first: Turn) -> None:
        taken = [first]
        try:
            self._write(first, self._take(name, taken))
        except BaseException as error:
            for turn in taken:
                if not turn.settled:
                    turn.fail(error)
            raise
        finally:
            self._hand_over(name)
            for turn in taken[1:]:
                turn.wake()

    def _take(self, name: str, taken: list[Turn]) -> Iterator[list[Turn]]:
        """Yield who leads, and then who waits, also who came since, until nobody does or it is long enough."""
        with self._lock:
            taken += _pop_company(self._waiting[name], taken[0], MOST - 1)
        yield taken[:]
        until = monotonic() + LONGEST_S
        while len(taken) < MOST and monotonic() < until:
            with self._lock:
                line = self._waiting[name]
                if not line:
                    return
                part = [line.popleft()]
                part += _pop_company(line, part[0], MOST - len(taken) - 1)
            taken += part
            yield part

    def _hand_over(self, name: str) -> None:
        with self._lock:
            line = self._waiting[name]
            heir = line.popleft() if line else None
            if heir is None:
                del self._waiting[name]
        if heir is not None:
            heir.wake()


def _pop_company(line: deque[Turn], turn: Turn, most: int) -> list[Turn]:
    """Take those next in line out of it whose work goes with that of a turn."""
    company: list[Turn] = []
    while line and len(company) < most and line[0].goes_with(turn):
        company.append(line.popleft())
    return company
