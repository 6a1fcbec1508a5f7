"""The pages of this part in a real browser: accessible, no wider than a phone, nothing against the policy."""

import json
import shutil
import subprocess

import pytest

from tests.ui.test_browser import CHECK, NODE
from tests.ui_b.conftest import Shop
from tests.web import served

PAGES = (
    ("/datasets/{warned}", "factory"),
    ("/runs/new?base=guanmo/demo-zh&data={ready}", "factory"),
    ("/runs/{quoted}", "factory"),
    ("/runs/{done}", "factory"),
    ("/vouchers", "factory"),
    ("/statement", "operator"),
    ("/filings", "operator"),
    ("/operator", "operator"),
    ("/operator/organisations", "operator"),
)


@pytest.mark.engine
def test_pages_in_chromium(shop: Shop) -> None:
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is missing; run 'make setup-tests'"
    for who in ("factory", "operator"):
        shop.world.visit(who)
    with served(shop.world.app) as base:
        pages = [(path.format(**shop.shown), who) for path, who in PAGES]
        task = {"base": base, "browser": browser, "cookies": shop.world.tokens, "pages": pages}
        done = subprocess.run([NODE, CHECK, json.dumps(task)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
