"""A market on either database, copied fresh for every test from a pattern that is built once.

It leaves what happens on it to the tests.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from tests.faults.cluster import Cluster
from tests.hub.money.market import Market, build_market

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
PATTERN = "pattern"


class Ground:
    """Where faults happen: `kind` is sqlite or postgresql."""

    def __init__(self, kind: str, home: Path, cluster: Cluster | None = None) -> None:
        self.kind, self.home, self.cluster = kind, home, cluster
        home.mkdir(parents=True, exist_ok=True)
        import_tables()
        url = cluster.url(_named(cluster, PATTERN)) if cluster else f"sqlite:///{home / 'pattern.sqlite3'}"
        opened = open_sessions(url)
        with opened.engine.begin() as connection:
            metadata.create_all(connection)
        self.pattern = build_market(opened, NOW, home / "files")
        opened.close()
        self._made = 0

    def copy(self, source: str | None = None) -> str:
        """Return the URL of a fresh copy of the pattern, or of another database of this ground."""
        if self.cluster is not None:
            return self.cluster.create((make_url(source).database if source else None) or PATTERN)
        self._made += 1
        target = self.home / f"copy-{os.getpid()}-{self._made}.sqlite3"
        shutil.copyfile(source.removeprefix("sqlite:///") if source else self.home / "pattern.sqlite3", target)
        return f"sqlite:///{target}"

    def drop(self, url: str) -> None:
        """Remove a copy."""
        if self.cluster is not None:
            self.cluster.drop(url)
            return
        for tail in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + tail).unlink(missing_ok=True)

    @contextmanager
    def market(self, url: str) -> Iterator[Market]:
        """Yield the market on a database and close it afterwards."""
        opened: Sessions = open_sessions(url)
        try:
            yield replace(self.pattern, sessions=opened, actors=dict(self.pattern.actors))
        finally:
            if self.kind == "sqlite":
                with opened.engine.connect() as connection:
                    connection.exec_driver_sql("ROLLBACK")
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                    connection.exec_driver_sql("BEGIN")
            opened.close()


def _named(cluster: Cluster, name: str) -> str:
    admin = create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return name
