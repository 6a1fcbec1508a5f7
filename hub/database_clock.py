"""The time by the database's clock, so that one machine with a wrong clock opens no other year and frees no hold.

It leaves reading this machine's own clock to `hub.clock`, which an embedded database shares.
"""

import time
from datetime import datetime, timedelta
from threading import Lock

from sqlalchemy import text

from hub.clock import Clock, from_us, read_clock
from hub.database import Sessions

ASKED_EVERY_S = 30
"""Between two questions the monotonic clock counts on, which nobody turns."""
_NOW_US = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


def choose_clock(sessions: Sessions) -> Clock:
    """Return the clock that everything on this database goes by: the server's, or this machine's where it is a file."""
    return DatabaseClock(sessions) if sessions.engine.dialect.name == "postgresql" else read_clock


class DatabaseClock:
    """Tells the server's time; whatever happens to this machine's wall clock does not show."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions, self._lock = sessions, Lock()
        self._moment: datetime | None = None
        self._read_at_s = 0.0

    def __call__(self) -> datetime:
        """Return the current time, aware, UTC. Raises: DBAPIError where the server must be asked and is away."""
        with self._lock:
            moment = self._moment
            if moment is None or time.monotonic() - self._read_at_s >= ASKED_EVERY_S:
                moment = self._ask()
            return moment + timedelta(seconds=time.monotonic() - self._read_at_s)

    def _ask(self) -> datetime:
        with self._sessions.read() as session:
            moment = from_us(int(session.execute(_NOW_US).scalar_one()))
        self._moment, self._read_at_s = moment, time.monotonic()
        return moment
