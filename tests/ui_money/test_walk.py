"""Every page of money of every role in a real browser, in both languages, on a desktop and a phone."""

from pathlib import Path

import pytest

from tests.chromium import run_browser
from tests.ui_money.pages import PAGES
from tests.ui_vouchers.scene import Scene
from tests.web import served

WALK = Path(__file__).with_name("walk.mjs")


@pytest.mark.engine
def test_each_role_walks_its_pages_of_money(scene: Scene) -> None:
    for who in PAGES:
        scene.world.visit(who)
    pages = [(path.format(**scene.ids), who) for who, paths in PAGES.items() for path in paths]
    with served(scene.world.app) as base:
        task = {"base": base, "cookies": scene.world.tokens, "pages": pages}
        found = run_browser(WALK, task, timeout_s=400)
    assert found["number"] == 4 * len(pages) > 200
    assert found["wrong"] == []
