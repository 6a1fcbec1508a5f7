"""Awards without a share: caps by tier, awards of programmes without a fund, payment whole by two persons."""

import pytest

from hub.claims import service as claims
from hub.errors import ConflictError, InvalidValueError
from hub.orders.cash import wallet
from hub.vouchers import service as vouchers
from hub.vouchers.rules import CapExceededError, ProgrammeClosedError, RuleRefusedError, TierRefusedError
from hub.vouchers.tables import Grant
from tests.hub.money.market import Market
from tests.hub.money.test_month_close import DECEMBER, close_month, draw, subsidised_line, use
from tests.hub.orders.call_steps import assert_sound
from tests.hub.vouchers.steps import add_invoice, add_proof, apply, draft, put_in_force
from tests.hub.vouchers.test_redemptions import decide

YUAN = 100


def award(market: Market, amount_fen: int, *, contract_no: str, **more: object) -> Grant:
    application = apply(market, contract_no=contract_no, asked_fen=amount_fen, **more)
    with market.sessions.write() as session:
        market.review(session, application.id, "checker", "check")
        grant = market.review(session, application.id, "approver", "approve")
    assert grant is not None
    return grant


@pytest.mark.parametrize("tier", [None, "", "leading "])
def test_a_rule_with_tiers_needs_one_of_them(market: Market, tier: str | None) -> None:
    with pytest.raises(TierRefusedError, match="its tiers: leading, joining"):
        apply(market, programme="data_standard", asked_fen=100, tier=tier)
    with pytest.raises(TierRefusedError, match="its tiers: none"):
        apply(market, programme="model", asked_fen=100, tier="leading")


def test_each_tier_has_its_own_cap_beside_the_firms(market: Market) -> None:
    with pytest.raises(InvalidValueError, match=r"1\.\.10000000 fen"):
        apply(market, programme="data_standard", asked_fen=100_001 * YUAN, tier="joining")
    award(market, 60_000 * YUAN, contract_no="A", programme="data_standard", tier="参与")
    with pytest.raises(CapExceededError, match="tier 'joining'"):
        award(market, 60_000 * YUAN, contract_no="B", programme="data_standard", tier="joining")
    award(market, 40_000 * YUAN, contract_no="C", programme="data_standard", tier="joining")
    award(market, 200_000 * YUAN, contract_no="D", programme="data_standard", tier="leading")
    with pytest.raises(CapExceededError, match="the firm"):
        award(market, 1, contract_no="E", programme="data_standard", tier="leading")
    assert_sound(market)


def test_a_tiers_cap_holds_when_the_voucher_pays(market: Market) -> None:
    tiers = [
        {"label_zh": "甲", "label_en": "large", "cap_fen": 30_000},
        {"label_zh": "乙", "label_en": "small", "cap_fen": 2_000},
    ]
    put_in_force(market, "compute", "hold", tiers=tiers)
    market.fund("factory", 50_000, "bank-1")
    award(market, 2_000, contract_no="A", programme="compute", tier="small")
    put_in_force(market, "compute", "hold", tiers=[tiers[0], {**tiers[1], "cap_fen": 500}])
    assert market.quote(trained_tokens=0).voucher_fen == 500


def test_a_tiers_cap_holds_when_the_month_is_topped_up(market: Market) -> None:
    large, small = (
        {"label_zh": zh, "label_en": en, "cap_fen": 30_000} for zh, en in (("大", "large"), ("小", "small"))
    )
    put_in_force(market, "model", "hold", tiers=[large, small])
    market.fund("factory", 50_000, "bank-1")
    for amount, tier in ((30, "small"), (40, "small"), (3, "large")):
        award(market, amount, contract_no=f"{tier}-{amount}", tier=tier)
    put_in_force(market, "model", "hold", tiers=[large, {**small, "cap_fen": 45}])
    use(market, draw(market, "a"), 125_000)  # 100 fen, of which the vouchers owe 50; the second grant paid its 40
    market.settle()
    market.now = DECEMBER
    assert close_month(market) == 1
    assert subsidised_line(market).subsidised_fen == 45 + 3
    assert close_month(market) == 0
    assert_sound(market)


@pytest.mark.parametrize(
    "tiers",
    [
        [{"label_zh": "甲", "label_en": "a", "cap_fen": 10**12}],
        [{"label_zh": "甲", "label_en": "a", "cap_fen": 1}, {"label_zh": "乙", "label_en": "a", "cap_fen": 1}],
        [{"label_zh": "甲", "label_en": "a", "cap_fen": 0}],
    ],
)
def test_tiers_that_cannot_be_are_refused(market: Market, tiers: object) -> None:
    with pytest.raises(RuleRefusedError):
        put_in_force(market, "compute", "hold", tiers=tiers)


@pytest.mark.parametrize("programme", ["data_asset", "typical_case", "scenario_model"])
def test_an_award_is_paid_whole_after_two_persons_and_claimed(market: Market, programme: str) -> None:
    grant = award(market, 50_000, contract_no="A", programme=programme)
    with market.sessions.write() as session, pytest.raises(InvalidValueError, match="invoice, payment missing"):
        claims.request_redemption(session, market.actors["factory"], grant.id, charge_ids=[], now=market.now)
    add_invoice(market, grant.id)
    add_proof(market, grant.id)
    with market.sessions.write() as session:
        asked = claims.request_redemption(session, market.actors["factory"], grant.id, charge_ids=[], now=market.now)
    assert (asked.eligible_fen, asked.amount_fen) == (50_000, 50_000)
    with market.sessions.write() as session, pytest.raises(ConflictError, match="asks for this award already"):
        claims.request_redemption(session, market.actors["factory"], grant.id, charge_ids=[], now=market.now)
    decide(market, asked, "checker", "check")
    decide(market, asked, "approver", "approve")
    with market.sessions.write() as session, pytest.raises(InvalidValueError, match="nothing to reimburse"):
        claims.request_redemption(session, market.actors["factory"], grant.id, charge_ids=[], now=market.now)
    with market.sessions.read() as session:
        assert wallet(session, market.owner("factory")).balance_fen == 50_000
    assert draft(market, programme=programme).amount_fen == 50_000
    assert_sound(market)


def test_only_edge_nodes_are_refused_with_their_reason(market: Market) -> None:
    with market.sessions.read() as session:
        closed = [row.code for row in vouchers.list_programmes(session) if not row.objects_held]
    assert closed == ["edge_node"]
    with pytest.raises(ProgrammeClosedError, match="does not hold edge nodes"):
        apply(market, programme="edge_node", asked_fen=100)
