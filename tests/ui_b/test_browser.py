"""The pages of this part in a real browser: accessible, no wider than a phone, nothing against the policy."""

import json
import shutil
import subprocess
from threading import Thread

import pytest
from werkzeug.serving import make_server

from tests.ui.test_browser import CHECK, NODE
from tests.ui_b.conftest import Shop

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
    server = make_server("127.0.0.1", 0, shop.world.app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        pages = [(path.format(**shop.shown), who) for path, who in PAGES]
        base = f"http://127.0.0.1:{server.server_port}"
        task = {"base": base, "browser": browser, "cookies": shop.world.tokens, "pages": pages}
        done = subprocess.run([NODE, CHECK, json.dumps(task)], capture_output=True, text=True, timeout=240, check=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
