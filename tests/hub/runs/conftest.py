"""The scene of the tests of runs, one fresh per test; whatever a worker started is ended with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.database import Sessions
from serving.launch import LocalLaunch
from tests.hub.runs.scene import Scene, build_scene


@pytest.fixture
def scene(sessions: Sessions, tmp_path: Path) -> Iterator[Scene]:
    built = build_scene(sessions, tmp_path / "home")
    yield built
    end_processes(built)


def end_processes(scene: Scene) -> None:
    """Kill what still runs."""
    launch = LocalLaunch(scene.home / "run" / "trainers")
    for handle in launch.list_mine():
        launch.fence(handle)
