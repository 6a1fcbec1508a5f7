"""The market of the money tests, filled: the factory has both vouchers and cash."""

import pytest

from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.money.market import Market

__all__ = ["built_market", "market", "postgresql"]


@pytest.fixture
def rich(market: Market) -> Market:
    """The factory has both vouchers and cash."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    return market
