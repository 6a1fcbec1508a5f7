"""Keeps the connection of the last write for the next one, which then need not be fetched from the pool and given back.

It leaves transactions to `hub.database`, and how many connections there are to the pool.
"""

from threading import Lock
from time import monotonic

from sqlalchemy import Connection, Engine

RESTED_SINCE_S = "rested_since_s"
"""In the pool's notes of a connection that comes back: monotonic seconds since when it rested already."""


class SpareConnection:
    """At most one connection between two transactions; one that rested for `rest_s` seconds goes by the pool again."""

    def __init__(self, engine: Engine, *, rest_s: float) -> None:
        self._engine, self._rest_s = engine, rest_s
        self._lock = Lock()
        self._kept: tuple[Connection, float] | None = None
        self._keeps = True

    def take(self) -> Connection:
        """Return a connection without a transaction, which the caller keeps here again or closes."""
        with self._lock:
            kept, self._kept, self._keeps = self._kept, None, True
        if kept is not None:
            connection, since_s = kept
            if monotonic() - since_s < self._rest_s:
                return connection
            # Its rest began when it came here: the pool asks whether it lives before it gives it to anybody.
            connection.info[RESTED_SINCE_S] = since_s
            connection.close()
        return self._engine.connect()

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose transaction was committed; where one is kept already, the pool gets it."""
        fit = not (connection.in_transaction() or connection.invalidated)
        with self._lock:
            if fit and self._keeps and self._kept is None:
                self._kept = connection, monotonic()
                return
        connection.close()

    def drop(self) -> None:
        """Give the pool what is kept, and whatever comes back before the next one is taken."""
        with self._lock:
            kept, self._kept, self._keeps = self._kept, None, False
        if kept is not None:
            kept[0].close()
