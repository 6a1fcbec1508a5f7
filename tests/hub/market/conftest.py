"""The market of the tests, one fresh per test."""

from datetime import datetime
from pathlib import Path

import pytest

from hub.database import Sessions
from tests.hub.market.world import World, build_world


@pytest.fixture
def world(sessions: Sessions, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch) -> World:
    return build_world(sessions, tmp_path / "home", now, monkeypatch)
