"""One marketplace for all tests of the pages that only read; a fresh one for those that change it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.world import World, build_world


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = build_world(tmp_path_factory.mktemp("market"))
    yield world
    world.sessions.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = build_world(tmp_path)
    yield made
    made.sessions.close()
