"""A tiny base and adapters for tests on real engines, made once per session in a process of their own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.pool.world import seal_artifact

ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@dataclass(frozen=True)
class TinyModels:
    """A base folder, and sealed adapter folders by digest that lie outside any pool's store."""

    base: Path
    adapters: dict[str, Path]


def make_tiny_models(folder: Path, *, adapters: int = 1) -> TinyModels:
    """Train nothing: random weights, the same for the same number."""
    drafts = [folder / f"draft-{number}" for number in range(adapters)]
    _write(folder / "base", *drafts)
    for draft in drafts:
        (draft / "README.md").unlink(missing_ok=True)
    return TinyModels(folder / "base", dict(seal_artifact(draft, folder / "artifacts") for draft in drafts))


def make_talker(folder: Path) -> Path:
    """Write a base whose greedy texts never repeat themselves; returns its folder."""
    _write("--talks", folder / "talker")
    return folder / "talker"


def _write(*arguments: str | Path) -> None:
    program = Path(__file__).with_name("make_tiny.py")
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, program, *arguments], env=environment, check=True)
