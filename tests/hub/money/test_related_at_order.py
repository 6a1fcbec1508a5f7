"""Related parties are looked for again when a quote is accepted: a sign since then means no order on that voucher."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from hub.ledger.invariants import check_invariants
from hub.orders import service
from hub.orders.tables import Order, Quote
from hub.organisations.service import find_organisation
from hub.organisations.tables import OwnerKind
from hub.vouchers.rules import RelatedPartiesError
from hub.vouchers.tables import Verdict
from tests.hub.money.market import Market
from tests.hub.vouchers.test_related import decide, declare, pay


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


def share_legal_person(market: Market) -> None:
    declare(market, "factory", "王建国")
    declare(market, "provider", "王建国")


def hold_the_other(market: Market) -> None:
    with market.sessions.read() as session:
        uscc = find_organisation(session, market.owner("factory")).uscc
    declare(market, "provider", "factory", code=uscc, kind=OwnerKind.HOLDER)


def pay_back(market: Market) -> None:
    market.fund("provider", 1000, "b1")
    pay(market, "provider", "factory")


def rule_related(market: Market) -> None:
    decide(market, Verdict.RELATED, reason="same address, same telephone")


@pytest.mark.parametrize("find", [share_legal_person, hold_the_other, pay_back, rule_related])
def test_a_relation_found_after_the_quote_stops_its_acceptance(rich: Market, find: Callable[[Market], None]) -> None:
    quote, accepted = rich.quote(), rich.quote()
    order = accept(rich, accepted)
    find(rich)
    with pytest.raises(RelatedPartiesError, match="Ask for a new quote") as caught:
        accept(rich, quote, "key-2")
    assert (caught.value.code, caught.value.status) == ("related_parties", 409)
    # A retry of what was accepted before is still that order.
    assert accept(rich, accepted).id == order.id
    with rich.sessions.read() as session:
        assert [row.id for row in session.scalars(select(Order))] == [order.id]
        assert [found.invariant.id for found in check_invariants(session) if found.broken] == []


def test_a_new_quote_counts_without_the_voucher_and_an_officers_clearance_with_it(rich: Market) -> None:
    quote = rich.quote()
    share_legal_person(rich)
    with pytest.raises(RelatedPartiesError):
        accept(rich, quote)
    again = rich.quote()
    assert again.lines[0].voucher_fen == 0
    decide(rich, Verdict.CLEARED)
    assert accept(rich, quote, "key-2").quote_id == quote.id
    assert accept(rich, again, "key-3").quote_id == again.id


def test_a_quote_that_no_voucher_pays_is_accepted_whoever_is_related(rich: Market) -> None:
    quote = rich.quote(filed=False, offer="private")
    assert quote.voucher_fen == 0
    share_legal_person(rich)
    assert accept(rich, quote).held_fen == quote.list_fen
