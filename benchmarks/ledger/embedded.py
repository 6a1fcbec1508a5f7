"""The same transfers on SQLite with synchronous=FULL, against a bare insert with its commit on the same disk.

It leaves PostgreSQL to `posting`.
"""

import itertools
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ledger.crowd import Step
from hub.database import Sessions, open_sessions
from hub.ids import new_id
from hub.tables import import_tables, metadata


@contextmanager
def open_file() -> Iterator[tuple[Sessions, Path]]:
    """Yield the hub's sessions on a fresh file and the folder it lies in, on the disk of /tmp."""
    with tempfile.TemporaryDirectory(prefix="guanmo-bench-", dir="/tmp") as folder:
        import_tables()
        sessions = open_sessions(f"sqlite:///{folder}/hub.sqlite3")
        with sessions.engine.begin() as connection:
            metadata.create_all(connection)
        yield sessions, Path(folder)
        sessions.close()


def bare_inserts(folder: Path) -> Step:
    """Insert one row of a transfer's size in each transaction, with the driver alone and the hub's settings."""
    connection = sqlite3.connect(folder / "bare.sqlite3", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, content TEXT, amount INTEGER) STRICT")
    numbers = itertools.count()

    def step() -> int:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO bare (content, amount) VALUES (?, ?)", (new_id("tra") * 8, next(numbers)))
        connection.execute("COMMIT")
        return 1

    return step
