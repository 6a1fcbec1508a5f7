"""One real marketplace for all journey tests: started once by `guanmo demo --detach`, stopped at the end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from examples.hub_client import Hub
from examples.steps import sign_in

ROOT = Path(__file__).resolve().parent.parent.parent
GUANMO = Path(sys.executable).parent / "guanmo"
HOME = ROOT / "var" / "journey"
BASES = ROOT / "var" / "bases"
DEMO_TIMEOUT_S = 1800
"""On a processor without bf16 the bases, trained beside the other tests, are ready late."""
TRAINING = pytest.StashKey["subprocess.Popen[bytes]"]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Train the demonstration's bases beside the tests that come first: one thread, the same weights as with two.

    The demonstration waits for this training, or finds it done. Of several workers the first one starts it.
    """
    here = Path(__file__).parent
    starts = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0" and not session.config.option.collectonly
    if not starts or not any(here in item.path.parents for item in session.items):
        return
    BASES.mkdir(parents=True, exist_ok=True)
    session.config.stash[TRAINING] = subprocess.Popen(
        ["nice", "-n", "5", sys.executable, "-m", "examples.bases.train", str(BASES)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the training if the tests ended first; it takes its unfinished folder away."""
    training = config.stash.get(TRAINING, None)
    if training is not None:
        training.send_signal(signal.SIGINT)
        training.wait(60)


@dataclass(frozen=True)
class Journey:
    """The running marketplace: environment of its processes, addresses, and what the demonstration printed."""

    environment: dict[str, str]
    values: dict[str, str]
    output: str
    hubs: dict[str, Hub] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return HOME

    def guanmo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the installation and return what it said."""
        return subprocess.run(
            [GUANMO, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sign_in(self, who: str) -> Hub:
        """Return the hub as one of the demonstration's people; signed in once, closed with the marketplace."""
        if who not in self.hubs:
            self.hubs[who] = sign_in(self.values["GUANMO_URL"], HOME, who)
        return self.hubs[who]


@pytest.fixture(scope="session")
def journey() -> Iterator[Journey]:
    """Run the whole demonstration once; bases come from the cache by content where they are trained already."""
    # The demonstration chooses its own threads; those of the other tests are for many engines at once.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = {**inherited, "GUANMO_HOME": str(HOME), **_choose_ports()}
    HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run([GUANMO, "down"], env=environment, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([GUANMO, "reset", "--yes"], env=environment, cwd=ROOT, check=True, capture_output=True)
    if not (HOME / "bases").exists():
        (HOME / "bases").symlink_to(BASES)
    try:
        done = subprocess.run(
            [GUANMO, "demo", "--detach"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEMO_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        lines = (HOME / "demo.env").read_text().splitlines()
        found = Journey(environment, dict(line.split("=", 1) for line in lines), done.stdout + done.stderr)
        yield found
        for hub in found.hubs.values():
            hub.http.close()
    finally:
        subprocess.run([GUANMO, "down"], env=environment, cwd=ROOT, check=True, capture_output=True, timeout=180)


def _choose_ports() -> dict[str, str]:
    names = ("HUB", "GATEWAY", "POOL", "MLFLOW")
    sockets = [socket.socket() for _ in names]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = {f"GUANMO_{name}_PORT": str(each.getsockname()[1]) for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return ports
