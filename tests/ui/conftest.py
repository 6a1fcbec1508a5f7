"""One marketplace for all tests that only read, and a copy of it, unchanged, for each test that changes something."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.world import World, build_world, copy_world


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The marketplace that others are copied from: everybody has signed in once, nothing else happened."""
    world = build_world(tmp_path_factory.mktemp("untouched"))
    for who in world.credentials:
        world.visit(who)
    world.sessions.close()
    return world


@pytest.fixture(scope="session")
def market(untouched: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = copy_world(untouched, tmp_path_factory.mktemp("market"))
    yield world
    world.sessions.close()


@pytest.fixture
def world(untouched: World, tmp_path: Path) -> Iterator[World]:
    made = copy_world(untouched, tmp_path)
    yield made
    made.sessions.close()
