"""Fixtures of the money tests: both databases, and a small market with money in it."""

from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from tests.hub.money.market import Market, build_market
from tests.hub.money.postgres import run_server

_serial = count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """One server for all tests that ask; its URL has a place for the database."""
    with run_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    """The ledger alone, for the same test on SQLite and on PostgreSQL."""
    import_tables()
    url = f"sqlite:///{tmp_path / 'hub.sqlite3'}"
    if request.param == "postgresql":
        url = _create_database(request.getfixturevalue("postgresql"))
    opened = open_sessions(url)
    wanted = [table for table in metadata.sorted_tables if table.name.startswith(("ledger_", "event"))]
    try:
        with opened.engine.begin() as connection:
            metadata.create_all(connection, tables=wanted)
        yield opened
    finally:
        opened.close()


@pytest.fixture
def market(sessions: Sessions, now: datetime, tmp_path: Path) -> Market:
    """A market on SQLite."""
    return build_market(sessions, now, tmp_path)


def _create_database(template: str) -> str:
    name = f"money_{next(_serial)}"
    admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return template.format(database=name)
