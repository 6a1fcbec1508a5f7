"""What holds for every test: quiet threads, so that several engines share two cores, no outside network, and no file
outside the checkout's own folders."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.pool.tiny_models import TinyModels, make_tiny_models

CACHE = Path(__file__).parent.parent / "var" / "cache"
JOURNEY = Path(__file__).parent / "journey"
MEMORY, ROOM_BYTES = Path("/dev/shm"), 6 * 2**30

# Set before torch is imported anywhere; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("VLLM_CACHE_ROOT", str(CACHE / "vllm"))
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))

# Tests write, flush and remove thousands of small files: in memory, where there is room, that costs next to nothing.
# Whoever asks how a disk behaves names a folder on one.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
    for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT"):
        os.environ.setdefault(name, str(MEMORY))

# On a busy machine drawing an example may take a second; that says nothing about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """A tiny base and four adapters on it, made once."""
    return make_tiny_models(tmp_path_factory.mktemp("tiny-models"), adapters=4)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base to train on, made once in a process of its own, so that the libraries' warnings stay out."""
    from tests.finetune.conftest import ENVIRONMENT  # which holds what is set above

    folder = tmp_path_factory.mktemp("tiny-base")
    script = Path(__file__).parent / "finetune" / "tiny_base.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=ENVIRONMENT, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def warm_trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a trainer that has its libraries and listens, as every installation has one."""
    from tests.finetune.conftest import keep_warm

    path = tmp_path_factory.mktemp("warm") / "warm.sock"
    with keep_warm(path) as process:
        yield path
    assert process.returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with real engines first: they take longest, and short ones fill the end of several workers.

    The journey comes after the other engines, when its bases are trained.
    """
    engines = {item.path for item in items if item.get_closest_marker("engine")}
    items.sort(key=lambda item: 1 if JOURNEY in item.path.parents else 0 if item.path in engines else 2)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Give each file to one worker, and all of the journey, whose tests share one running marketplace."""
    return _WholeFiles(config, log)


class _WholeFiles(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "journey" if file.startswith("tests/journey/") else file
