"""The market of the money tests, in which the provider has earned something."""

import pytest

from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.money.market import Market

__all__ = ["built_market", "market", "postgresql"]


@pytest.fixture
def earner(market: Market) -> Market:
    """The provider has earned 5,000 fen."""
    with market.sessions.write() as session:
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=market.now)
        payable = open_account(
            session, organisation_id=market.owner("provider"), kind=AccountKind.PAYABLE, now=market.now
        )
        earned = move("tra_earned", bank, payable, amount_fen=5000, code="income_seller")
        post_group(session, "grp_earned", [earned], Posted("test", "t", "usr", market.now))
    return market
