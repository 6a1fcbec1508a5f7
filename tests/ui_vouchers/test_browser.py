"""The officer's pages in a real browser: accessible, no wider than a phone, nothing against the policy."""

import pytest

from tests.chromium import check_pages
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
    for who in {who for _, who in PAGES}:
        scene.world.visit(who)
    with served(scene.world.app) as base:
        pages = [(path.format(**scene.ids), who) for path, who in PAGES]
        assert check_pages(base, scene.world.tokens, pages) == []
