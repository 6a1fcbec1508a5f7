"""Fixtures of the fault tests: both databases with a market on them. FAULTS_LONG=1 runs the long forms."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.ground import Ground
from tests.hub.money.market import Market


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether to run as long as `make faults-ledger` does."""
    return os.environ.get("FAULTS_LONG") == "1"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for the tests that do not crash it."""
    opened = Cluster(durable=False)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def sqlite_ground() -> Iterator[Ground]:
    """Files in memory where there is room: a killed process leaves the same behind there as on a disk."""
    with tempfile.TemporaryDirectory(prefix="guanmo-ground-") as folder:
        yield Ground("sqlite", Path(folder) / "sqlite")


@pytest.fixture(scope="session")
def postgresql_ground(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Ground:
    return Ground("postgresql", tmp_path_factory.mktemp("ground") / "postgresql", cluster)


@pytest.fixture(params=["sqlite", "postgresql"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """The same test on SQLite and on PostgreSQL."""
    found: Ground = request.getfixturevalue(f"{request.param}_ground")
    return found


@pytest.fixture
def place(ground: Ground) -> Iterator[str]:
    """A fresh database of a ground."""
    url = ground.copy()
    yield url
    ground.drop(url)


@pytest.fixture
def market(ground: Ground, place: str) -> Iterator[Market]:
    """A fresh market with nobody's money in it."""
    with ground.market(place) as opened:
        yield opened
