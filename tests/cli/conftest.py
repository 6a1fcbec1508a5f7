"""A home with a space in its path, secrets in it, and two stand-ins; whatever a test leaves running is ended."""

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hub.cli.processes import Process
from hub.cli.supervision import stop_all
from hub.secrets import make_secrets
from hub.settings import Settings

STAND_IN = Path(__file__).parent / "stand_in.py"


@dataclass(frozen=True)
class Site:
    """An installation of stand-ins."""

    settings: Settings
    processes: list[Process]

    @property
    def home(self) -> Path:
        return self.settings.home

    def list_pids(self) -> list[int]:
        """Every pid that a stand-in or its child ever had here."""
        path = self.home / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def list_alive(self) -> list[int]:
        """Those of them that still run."""
        return [pid for pid in self.list_pids() if _runs(pid)]


def make_site(folder: Path) -> Site:
    """Return an installation below `folder`: 'hub' serves HTTP, 'worker' sleeps."""
    home = folder / "my home"
    make_secrets(home)
    port = find_free_port()
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'hub.sqlite3'}", hub_port=port)
    command = [sys.executable, "-S", str(STAND_IN)]
    return Site(
        settings,
        [
            Process("hub", [*command, "hub", str(home), str(port)], f"http://127.0.0.1:{port}/healthz", port),
            Process("worker", [*command, "worker", str(home)], "", None),
        ],
    )


@pytest.fixture
def site() -> Iterator[Site]:
    """One fresh installation; its path is short, for a socket lives in it."""
    yield from _lend_site()


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    """The same for a whole module."""
    yield from _lend_site()


def find_free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lend_site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="gm"))
    made = make_site(folder)
    yield made
    stop_all(made.settings)
    shutil.rmtree(folder)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
