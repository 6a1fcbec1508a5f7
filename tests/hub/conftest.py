"""Fixtures of the hub's tests: a fresh database file and a fixed time. Rooms' own fixtures stay with them."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with every table and no row, made once: creating the tables takes longer than most tests."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite3"
    import_tables()
    opened = open_sessions(f"sqlite:///{path}")
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    opened.close()
    return path


@pytest.fixture
def sessions(tmp_path: Path, empty_database: Path) -> Iterator[Sessions]:
    path = tmp_path / "hub.sqlite3"
    shutil.copyfile(empty_database, path)
    opened = open_sessions(f"sqlite:///{path}")
    yield opened
    opened.close()
