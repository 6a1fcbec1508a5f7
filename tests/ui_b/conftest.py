"""A marketplace that the tests of this folder change, and one that they only read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.world import World, build_world


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One marketplace for all tests: each of them looks only at what it made itself."""
    made = build_world(tmp_path_factory.mktemp("market"))
    yield made
    made.sessions.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh marketplace."""
    made = build_world(tmp_path)
    yield made
    made.sessions.close()
