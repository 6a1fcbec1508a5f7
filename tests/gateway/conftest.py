"""The fake engine of a file whose tests share one `stage`: a world and its gateway."""

from collections.abc import Iterator

import pytest

from tests.gateway.engine import Engine
from tests.gateway.world import Gateway, World


@pytest.fixture
def engine(stage: tuple[World, Gateway]) -> Iterator[Engine]:
    """The first engine, as new again after the test."""
    yield stage[0].engines[0]
    stage[0].engines[0].__init__()  # type: ignore[misc]
