"""One marketplace with vouchers used, claimed and waiting in each state; pages are read and changed in it."""

from collections.abc import Iterator

import pytest

from tests.ui.world import World, build_world
from tests.ui_vouchers.scene import Scene, fill


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A marketplace whose factory has used both vouchers."""
    world: World = build_world(tmp_path_factory.mktemp("vouchers"))
    yield fill(world)
    world.sessions.close()
