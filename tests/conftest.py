"""What holds for every test: quiet threads, so that several engines share two cores, no outside network, and no file
outside the checkout's own folders."""

import os
from pathlib import Path

import pytest

from tests.pool.tiny_models import TinyModels, make_tiny_models

CACHE = Path(__file__).parent.parent / "var" / "cache"
JOURNEY = Path(__file__).parent / "journey"

# Set before torch is imported anywhere; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("VLLM_CACHE_ROOT", str(CACHE / "vllm"))
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """A tiny base and four adapters on it, made once."""
    return make_tiny_models(tmp_path_factory.mktemp("tiny-models"), adapters=4)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each file to one worker, the files with real engines first: they take longest, and short ones fill the end.

    The journey's tests share one running marketplace, and come after the other engines, when its bases are trained.
    """
    engines = {item.path for item in items if item.get_closest_marker("engine")}
    items.sort(key=lambda item: 1 if _is_journey(item) else 0 if item.path in engines else 2)
    for item in items:
        group = "journey" if _is_journey(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def _is_journey(item: pytest.Item) -> bool:
    return JOURNEY in item.path.parents
