"""Fixtures of the audit tests: both databases, a market with money, and an installation's audit key."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hub.audit.signing import AuditKey
from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from tests.hub.money.conftest import built_market, market, postgresql

__all__ = ["built_market", "market", "postgresql"]
_serial = count()


@pytest.fixture
def key() -> AuditKey:
    return AuditKey("a secret of the tests")


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    """The ledger with its outbox and its audit chain, on SQLite and on PostgreSQL."""
    import_tables()
    url = f"sqlite:///{tmp_path / 'hub.sqlite3'}"
    if request.param == "postgresql":
        url = create_database(request.getfixturevalue("postgresql"), f"audit_{next(_serial)}")
    opened = open_sessions(url)
    wanted = [table for table in metadata.sorted_tables if table.name.startswith(("ledger_", "event", "audit_"))]
    try:
        with opened.engine.begin() as connection:
            metadata.create_all(connection, tables=wanted)
        yield opened
    finally:
        opened.close()


def create_database(template: str, name: str) -> str:
    """Return the URL of a fresh database of the tests' server."""
    admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return template.format(database=name)
