"""One marketplace with money in every state, for tests that read it and one that changes what it made itself."""

from collections.abc import Iterator

import pytest

from tests.ui.world import build_world
from tests.ui_money.scene import fill_money
from tests.ui_vouchers.scene import Scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Calls, rentals, corrections, redemptions, payouts, a claim and two reports."""
    world = build_world(tmp_path_factory.mktemp("money"))
    yield fill_money(world)
    world.sessions.close()
