"""One marketplace with a record of each kind for tests that only read, and one that tests may change."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.ui.world import World, build_world
from tests.ui_b.scene import add_data, show_everything


@dataclass
class Shop:
    """A filled marketplace; `shown` are the ids of its records by name."""

    world: World
    shown: dict[str, str]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Data sets and runs in each state; read only."""
    world = build_world(tmp_path_factory.mktemp("shop"))
    yield Shop(world, show_everything(world))
    world.sessions.close()


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Changed by tests, each of which looks only at what it made itself."""
    made = build_world(tmp_path_factory.mktemp("market"))
    yield made
    made.sessions.close()


@pytest.fixture(scope="session")
def data(market: World) -> str:
    """A data set of the factory in the changing marketplace, ready to train on."""
    return add_data(market, market.visit("factory"))
