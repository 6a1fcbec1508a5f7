"""Voucher money never becomes the firm's own income: plain bases, own prices, own parts of a split."""

from typing import Any

import pytest
from sqlalchemy import select

from hub.ledger.audit import check_books
from hub.orders import service
from hub.orders.tables import BillLine, Charge, UsageTranche
from hub.prices.service import DEFAULT, publish_price, publish_split
from hub.vouchers.programmes import rule_of_day
from hub.vouchers.service import LineToCover, approve_rule, draft_rule, find_cover, find_programme, list_grants
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market, add_adapter

FEN = 1_000_000
TEN_FEN = (0, 0, 12_500)


@pytest.fixture
def rich(market: Market) -> Market:
    """The factory has a model voucher and cash."""
    market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    return market


def serve(market: Market, version_id: str) -> BillLine:
    """Serve calls for ten fen and return their bill line."""
    piece = market.draw("a")
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, "r1", TEN_FEN, version_id=version_id))
    market.close(piece.allowance_id, through_seq=1)
    assert market.settle() == 1
    with market.sessions.read() as session:
        assert check_books(session) == []
        return session.scalars(select(BillLine)).one()


def sell(market: Market, who: str, subject: str, parts: list[dict[str, Any]]) -> None:
    """Price calls at the default figures, with `who` as the seller."""
    with market.sessions.write() as session:
        seller = market.owner(who)
        terms = None
        if parts:
            terms = publish_split(session, market.actors[who], organisation_id=seller, parts=parts, now=market.now).id
        market.call_price = publish_price(
            session,
            market.actors[who],
            organisation_id=seller,
            subject_kind="version",
            subject=subject,
            lines={"prompt": (200, FEN), "completion": (800, FEN)},
            split_terms_id=terms,
            now=market.now,
        ).id


def part(market: Market, party: str, who: str | None, num: int) -> dict[str, Any]:
    return {"party": party, "organisation_id": market.owner(who) if who else None, "num": num, "den": 10}


def held_of_voucher(market: Market) -> int:
    with market.sessions.read() as session:
        return session.scalars(select(UsageTranche.voucher_held_fen)).one()


def draft(market: Market, **changes: object) -> None:
    """Put a changed rule of the model voucher in force."""
    with market.sessions.write() as session:
        rule = rule_of_day(session, find_programme(session, "model").id, market.now)
        assert rule is not None
        drafted = draft_rule(
            session,
            market.actors["checker"],
            programme="model",
            body={**rule.body, **changes},
            effective_from_at=market.now,
            effective_to_at=None,
            source="test",
            now=market.now,
        )
        approve_rule(session, market.actors["approver"], drafted.id, now=market.now)


def test_calls_of_the_own_adapter_at_the_platform_price_are_subsidised(rich: Market) -> None:
    line = serve(rich, rich.filed_adapter)
    assert (line.posted_fen, line.subsidised_fen, line.programme) == (10, 5, "model")


def test_calls_of_the_plain_base_are_not_subsidised(rich: Market) -> None:
    line = serve(rich, rich.filed_version)
    assert (line.posted_fen, line.subsidised_fen, line.programme) == (10, 0, None)


def test_a_price_of_plain_bases_holds_no_voucher(rich: Market) -> None:
    with rich.sessions.write() as session:
        rich.call_price = publish_price(
            session,
            None,
            organisation_id=rich.owner("operator"),
            subject_kind="base",
            subject=DEFAULT,
            lines={"prompt": (200, FEN), "completion": (800, FEN)},
            now=rich.now,
        ).id
    assert serve(rich, rich.filed_version).programme is None
    assert held_of_voucher(rich) == 0


def test_a_bought_adapter_is_subsidised_and_its_seller_paid(rich: Market) -> None:
    bought = add_adapter(rich, "integrator", rich.filed_version, "bought")
    sell(rich, "integrator", bought, [])
    line = serve(rich, bought)
    assert (line.posted_fen, line.subsidised_fen) == (10, 5)
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("integrator")).payable_fen == 10


@pytest.mark.parametrize("split", [False, True])
def test_own_calls_at_the_own_price_draw_no_voucher_and_earn_nothing(rich: Market, split: bool) -> None:
    parts = [part(rich, "integrator", "factory", 7), part(rich, "pool", None, 2)] if split else []
    sell(rich, "factory", rich.filed_adapter, parts)
    line = serve(rich, rich.filed_adapter)
    assert (line.posted_fen, line.subsidised_fen, line.programme) == (10, 0, None)
    assert held_of_voucher(rich) == 0
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("factory")).payable_fen == 0
        assert [row.left_fen for row in list_grants(session, rich.owner("factory"))] == [30_000]
        charge = session.scalars(select(Charge)).one()
        given = sorted((row.party, row.organisation_id, row.amount_fen) for row in charge.parts)
    assert given == ([("platform", "", 8), ("pool", "", 2)] if split else [("platform", "", 10)])


def test_a_payer_among_the_partners_of_a_split_draws_no_voucher(rich: Market) -> None:
    bought = add_adapter(rich, "integrator", rich.filed_version, "bought")
    sell(rich, "integrator", bought, [part(rich, "integrator", "integrator", 5), part(rich, "provider", "factory", 3)])
    assert serve(rich, bought).subsidised_fen == 0
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("integrator")).payable_fen == 5
        assert service.wallet(session, rich.owner("factory")).payable_fen == 0


@pytest.mark.parametrize(("strict", "subsidised"), [(True, 0), (False, 5)])
def test_the_rule_says_whether_the_owner_of_the_base_is_related(rich: Market, strict: bool, subsidised: int) -> None:
    draft(rich, non_affiliated=strict)
    bought = add_adapter(rich, "integrator", rich.filed_version, "bought")
    parts = [part(rich, "integrator", "integrator", 5), part(rich, "base_owner", "factory", 3)]
    sell(rich, "integrator", bought, parts)
    assert serve(rich, bought).subsidised_fen == subsidised
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("factory")).payable_fen == 0


@pytest.mark.parametrize(("needed", "subsidised"), [(True, 0), (False, 5)])
def test_the_rule_says_whether_calls_need_a_filed_base(rich: Market, needed: bool, subsidised: int) -> None:
    draft(rich, needs_filed_base=needed)
    assert serve(rich, rich.unfiled_adapter).subsidised_fen == subsidised


def test_own_sales_are_refused_whatever_the_rule_says(rich: Market) -> None:
    draft(rich, non_affiliated=False)
    owner = rich.owner("factory")
    with rich.sessions.read() as session:
        answer = find_cover(session, LineToCover(owner, "completion", 1000, True, False, owner), rich.now)
    assert [(row.programme, row.code) for row in answer.refusals] == [("model", "affiliated")]
    assert answer.covers == []


def test_shipped_rules_shut_out_related_parties_by_our_default(market: Market) -> None:
    with market.sessions.read() as session:
        for code in ("model", "compute"):
            rule = rule_of_day(session, find_programme(session, code).id, market.now)
            assert rule is not None
            assert rule.body["non_affiliated"] is True
            assert "non_affiliated" in rule.body["our_defaults"]
