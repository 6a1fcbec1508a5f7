"""The simulated clock: actions wait for their time and run in order, each in a transaction of its own.

It leaves what an action does to `trade` and the worker's steps to `chores`.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from random import Random

from sqlalchemy.orm import Session

from hub.database import Sessions
from hub.errors import GuanmoError

Action = Callable[[Session], object]


@dataclass
class Clockwork:
    """What happens when. A refusal by the hub is counted by its code and undoes its action only."""

    sessions: Sessions
    now: datetime
    rng: Random
    refused: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    _waiting: list[tuple[datetime, int, str, Action]] = field(default_factory=list)
    _serial: "count[int]" = field(default_factory=count)

    def at(self, moment: datetime, name: str, action: Action) -> None:
        """Let an action happen at a time; `name` is what it is counted as."""
        heapq.heappush(self._waiting, (max(moment, self.now), next(self._serial), name, action))

    def run_until(self, end: datetime) -> None:
        """Let everything happen whose time comes before `end`."""
        while self._waiting and self._waiting[0][0] < end:
            self.now, _, name, action = heapq.heappop(self._waiting)
            self.act(name, action)
        self.now = end

    def act(self, name: str, action: Action) -> object:
        """Do an action now and return what it returned, None where the hub refused it."""
        try:
            with self.sessions.write() as session:
                result = action(session)
        except GuanmoError as error:
            self.refused[error.code] += 1
            return None
        self.done[name] += 1
        return result
