"""Every page of money of every role in a real browser, in both languages, on a desktop and a phone."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ui.test_browser import NODE
from tests.ui_money.pages import PAGES
from tests.ui_vouchers.scene import Scene
from tests.web import served

WALK = Path(__file__).with_name("walk.mjs")


@pytest.mark.engine
def test_each_role_walks_its_pages_of_money(scene: Scene) -> None:
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is missing; run 'make setup-tests'"
    for who in PAGES:
        scene.world.visit(who)
    pages = [(path.format(**scene.ids), who) for who, paths in PAGES.items() for path in paths]
    with served(scene.world.app) as base:
        task = {"base": base, "browser": browser, "cookies": scene.world.tokens, "pages": pages}
        done = subprocess.run([NODE, WALK, json.dumps(task)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["number"] == 4 * len(pages) > 200
    assert found["wrong"] == []
