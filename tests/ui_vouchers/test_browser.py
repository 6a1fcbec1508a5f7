"""The officer's pages in a real browser: accessible, no wider than a phone, nothing against the policy."""

import json
import shutil
import subprocess

import pytest

from tests.ui.test_browser import CHECK, NODE
from tests.ui_vouchers.scene import Scene
from tests.web import served

PAGES = (
    ("/operator/programmes/model/draft", "operator"),
    ("/operator/claims", "operator"),
    ("/operator/claims/{claim}", "reviewer"),
    ("/operator/reports/{month}", "auditor"),
    ("/vouchers/grants/{grant_model}", "factory"),
)


@pytest.mark.engine
def test_pages_in_chromium(scene: Scene) -> None:
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is missing; run 'make setup-tests'"
    for who in {who for _, who in PAGES}:
        scene.world.visit(who)
    with served(scene.world.app) as base:
        pages = [(path.format(**scene.ids), who) for path, who in PAGES]
        task = {"base": base, "browser": browser, "cookies": scene.world.tokens, "pages": pages}
        done = subprocess.run([NODE, CHECK, json.dumps(task)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
