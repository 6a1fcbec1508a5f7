"""The filing is asked again when a quote is accepted: withdrawn or expired since means no new order."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.filings.service import file_base, list_filings, withdraw_filing
from hub.filings.tables import Track
from hub.orders import service
from hub.orders.rules import FilingEndedError
from hub.orders.tables import Order, Quote
from tests.hub.money.market import Market


@pytest.fixture
def rich(market: Market) -> Market:
    """The factory has both vouchers and cash."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    return market


def accept(market: Market, quote: Quote, key: str = "key-1") -> Order:
    with market.sessions.write() as session:
        return service.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=market.now)


def withdraw(market: Market) -> None:
    with market.sessions.write() as session:
        filing = list_filings(session)[0]
        withdraw_filing(session, market.actors["operator"], filing.id, reason="Recalled.", now=market.now)


def test_a_filing_withdrawn_after_the_quote_stops_the_order(rich: Market) -> None:
    quote, accepted = rich.quote(), rich.quote()
    order = accept(rich, accepted)
    withdraw(rich)
    with pytest.raises(FilingEndedError, match="withdrawn") as caught:
        accept(rich, quote, "key-2")
    assert (caught.value.code, caught.value.field) == ("filing_ended", "base_version_id")
    # A retry of what was accepted before is still that order, and it settles at its pinned terms.
    assert accept(rich, accepted).id == order.id
    with rich.sessions.write() as session:
        metered = {"device_ms": 0, "trained_tokens": 1_000_000}
        assert service.settle_order(session, order.id, metered=metered, now=rich.now).voucher_fen == 1500
        assert len(session.scalars(select(Order)).all()) == 1


def test_a_filing_that_expires_after_the_quote_stops_the_order(rich: Market) -> None:
    with rich.sessions.write() as session:
        file_base(
            session,
            rich.actors["operator"],
            weights_digest=session.get_one(ModelVersion, rich.unfiled_version).weights_digest,
            model_name="Second base",
            holder="Demo firm",
            number="DEMO-备案-0002",
            body="demonstration body",
            authority="demonstration",
            track=Track.FILING,
            scope="work orders",
            filed_at=rich.now - timedelta(days=1),
            valid_until=rich.now + timedelta(hours=1),
            evidence_digest="e" * 64,
            evidence_name="evidence.pdf",
            now=rich.now,
        )
        quote = service.quote_tuning(
            session,
            rich.actors["factory"],
            base_version_id=rich.unfiled_version,
            base_public_name="operator/second",
            filed=True,
            offer=rich.offers["city"],
            dataset_version_id="dsv_1",
            device_ms=1,
            trained_tokens=1000,
            plan_digest="p",
            subject="run_1",
            now=rich.now,
        )
    rich.now += timedelta(hours=2)
    with pytest.raises(FilingEndedError, match="expired"):
        accept(rich, quote)


def test_a_base_never_filed_is_still_ordered_in_cash(rich: Market) -> None:
    assert accept(rich, rich.quote(filed=False, offer="private")).state == "held"
