"""Fixtures of the hub's tests: a fresh database file and a fixed time. Rooms' own fixtures stay with them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    import_tables()
    opened = open_sessions(f"sqlite:///{tmp_path / 'hub.sqlite3'}")
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    yield opened
    opened.close()
