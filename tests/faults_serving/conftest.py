"""Fixtures of the fault tests of gateway and pool. FAULTS_LONG=1 (`make faults-serving`) runs the long forms."""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults_serving.yard import Yard, running_yard, want_engines
from tests.pool.tiny_models import make_talker

Say = Callable[..., None]
CLIENTS, TOKENS = 8, 200
collect_ignore = [] if os.environ.get("FAULTS_LONG") == "1" else ["test_renewal.py", "test_scaling.py"]
"""Minutes on real vLLM with no short form; the same rules on a fake engine are in `tests/pool`."""


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether to run as long as `make faults-serving` does."""
    return os.environ.get("FAULTS_LONG") == "1"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Two slots with an engine each, for the tests of one file; each leaves two ready."""
    folder = tmp_path_factory.mktemp("yard")
    desired = want_engines(make_talker(folder), minimum=2, seats=16)
    with running_yard(desired, folder) as running:
        yield running


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Seeded by FAULTS_SEED, else by the test's name, so that a failure can be run again."""
    return random.Random(os.environ.get("FAULTS_SEED", request.node.name))


@pytest.fixture
def say(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Say:
    """Print the figure of a test in one line, whatever pytest captures."""

    def write(**figures: Any) -> None:
        with capfd.disabled():
            told = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"\n{request.node.name}: {told}", flush=True)  # noqa: T201 - what the target is for

    return write
