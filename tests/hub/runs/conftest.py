"""The scene of the tests of runs, one fresh per test; whatever a worker started is ended with it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from serving.launch import LocalLaunch
from tests.hub.money.postgres import run_server
from tests.hub.runs.scene import Scene, build_scene

_serial = count()


@pytest.fixture
def scene(sessions: Sessions, tmp_path: Path) -> Iterator[Scene]:
    built = build_scene(sessions, tmp_path / "home")
    yield built
    end_processes(built)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One PostgreSQL server whose database `whole` has every table; its URL has a place for the database."""
    import_tables()
    with run_server() as url:
        _run_command(url, "CREATE DATABASE whole")
        opened = open_sessions(url.format(database="whole"))
        with opened.engine.begin() as connection:
            metadata.create_all(connection)
        opened.close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    """The same test on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sessions")
        return
    url, name = request.getfixturevalue("server"), f"runs_{next(_serial)}"
    _run_command(url, f"CREATE DATABASE {name} TEMPLATE whole")
    opened = open_sessions(url.format(database=name))
    yield opened
    opened.close()


@pytest.fixture
def scene_on_both(both: Sessions, tmp_path: Path) -> Iterator[Scene]:
    """The same scene on SQLite and on PostgreSQL."""
    built = build_scene(both, tmp_path / "home")
    yield built
    end_processes(built)


def end_processes(scene: Scene) -> None:
    """Kill what still runs."""
    launch = LocalLaunch(scene.home / "run" / "trainers")
    for handle in launch.list_mine():
        launch.fence(handle)


def _run_command(url: str, command: str) -> None:
    admin = create_engine(url.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(command))
    admin.dispose()
