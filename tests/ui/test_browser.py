"""The pages in a real browser: accessible, no wider than a phone, nothing against the policy, nothing foreign."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import check_pages
from tests.ui.twin_gateway import run_gateway
from tests.ui.world import World, copy_world, mark_ready
from tests.web import served

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
    for who in ("factory", "integrator"):
        world.visit(who)
    assert [line for line in check_pages(base, world.tokens, PAGES) if "404 (NOT FOUND)" not in line] == []
