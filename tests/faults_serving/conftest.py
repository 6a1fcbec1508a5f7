"""Fixtures of the fault tests of gateway and pool. FAULTS_LONG=1 (`make faults-serving`) runs the long forms."""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

Say = Callable[..., None]


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether to run as long as `make faults-serving` does."""
    return os.environ.get("FAULTS_LONG") == "1"


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
