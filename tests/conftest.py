"""What holds for every test: quiet threads, so that several engines share two cores, no outside network, and no file
outside the checkout's own folders."""

import os
from pathlib import Path

import pytest

from tests.pool.tiny_models import TinyModels, make_tiny_models

CACHE = Path(__file__).parent.parent / "var" / "cache"

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
