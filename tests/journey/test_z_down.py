"""The end of the journey: `guanmo down`. The file's name puts it after every other test of this folder."""

import psutil
import pytest

from tests.journey.conftest import Journey

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2400)]


def test_down_leaves_nothing_running(journey: Journey) -> None:
    """Stops the marketplace; the fixture's own stop then finds nothing to do."""
    assert journey.guanmo("down").returncode == 0
    mark = str(journey.home)
    left = [process for process in psutil.process_iter(["cmdline"]) if mark in " ".join(process.info["cmdline"] or [])]
    assert left == []
    assert journey.guanmo("status").returncode == 1
