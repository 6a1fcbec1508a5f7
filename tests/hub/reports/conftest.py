"""A firm that fine-tuned once, rented an hour and called its model, with November behind it."""

import pytest

from hub.orders import service
from serving.contract import AllowanceGrant
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.money.market import Market

__all__ = ["built_market", "market", "postgresql"]
CALLS = [(731, 12, 143), (90_211, 80_000, 2_004), (13, 0, 1), (55_555, 0, 4_444), (7, 7, 0)]


@pytest.fixture
def busy(market: Market) -> Market:
    """Vouchers, cash, one fine-tune of 4,201 fen settled in full, five calls of a filed and an unfiled adapter."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    quote = market.quote()
    with market.sessions.write() as session:
        order = service.accept_quote(session, market.actors["factory"], quote.id, idempotency_key="k", now=market.now)
        metered = {"device_ms": 3_600_000, "trained_tokens": 1_000_000}
        service.settle_order(session, order.id, metered=metered, now=market.now)
    piece = market.draw("draw")
    assert isinstance(piece, AllowanceGrant)
    records = [
        market.record(piece.allowance_id, f"r-{index}", counts, filed=index != 3) for index, counts in enumerate(CALLS)
    ]
    market.send(*records)
    market.close(piece.allowance_id, through_seq=len(CALLS))
    market.settle()
    return market
