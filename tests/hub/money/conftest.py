"""Fixtures of the money tests: both databases, and a small market with money in it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from tests.hub.money.market import Market, build_market, copied
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


@pytest.fixture(scope="session")
def built_market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A market whose closed database file is the pattern of every test's own."""
    home = tmp_path_factory.mktemp("market")
    import_tables()
    opened = open_sessions(f"sqlite:///{home / 'hub.sqlite3'}")
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    built = build_market(opened, datetime(2026, 11, 21, 3, 0, tzinfo=UTC), home)
    opened.close()
    return built


@pytest.fixture
def market(built_market: Market) -> Iterator[Market]:
    """A market on SQLite with nobody's money in it yet."""
    with copied(built_market) as market:
        yield market


def _create_database(template: str) -> str:
    name = f"money_{next(_serial)}"
    admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return template.format(database=name)
