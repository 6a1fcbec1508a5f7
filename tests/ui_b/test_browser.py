"""The pages of this part in a real browser: accessible, no wider than a phone, nothing against the policy."""

import pytest

from tests.chromium import check_pages
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
    ("/operator/pool", "operator"),
    ("/account", "operator"),
)


@pytest.mark.engine
def test_pages_in_chromium(shop: Shop) -> None:
    for who in ("factory", "operator"):
        shop.world.visit(who)
    with served(shop.world.app) as base:
        pages = [(path.format(**shop.shown), who) for path, who in PAGES]
        assert check_pages(base, shop.world.tokens, pages) == []
