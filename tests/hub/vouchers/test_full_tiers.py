"""Where a tier is full, the next grant that could pay does: of the same programme, then of another one; caps hold."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from hub.ledger.tables import Account
from hub.orders.tables import BillLine
from hub.vouchers.service import GrantBalance, LineToCover, find_cover, list_grants
from hub.vouchers.tables import Application, Grant
from tests.hub.money.market import Market, copied
from tests.hub.money.test_month_close import DECEMBER, FEN, FUNDS, PER_TOKEN, close_month, draw, use
from tests.hub.orders.call_steps import assert_sound
from tests.hub.vouchers.steps import buy, put_in_force
from tests.hub.vouchers.test_awards import award

TIERS = ("large", "small")


def cap_tiers(market: Market, programme: str, *caps: int, **more: object) -> None:
    """Put a rule in force whose tiers have these caps."""
    tiers = [{"label_zh": f"{name}档", "label_en": name, "cap_fen": cap} for name, cap in zip(TIERS, caps, strict=True)]
    put_in_force(market, programme, "hold", tiers=tiers, **more)


@pytest.fixture
def tiered(market: Market) -> Market:
    """The small tier of the compute voucher is full after 600 fen, though its grant has 1400; the large one has 700."""
    cap_tiers(market, "compute", 30_000, 2_000)
    market.fund("factory", FUNDS, "bank-1")
    award(market, 2_000, contract_no="A", programme="compute", tier="small")
    buy(market)
    market.now += timedelta(minutes=1)
    award(market, 700, contract_no="B", programme="compute", tier="large")
    cap_tiers(market, "compute", 30_000, 400)
    return market


def list_paid(market: Market) -> list[tuple[str, int, int]]:
    """Return programme, fen and place among the grants of what pays an hour of device time, which is 1201 fen."""
    line, _ = market.quote(trained_tokens=0).lines
    with market.sessions.read() as session:
        order = [row.grant.id for row in list_grants(session, market.owner("factory"))]
    return [(cover.programme, cover.amount_fen, order.index(cover.grant_id)) for cover in line.covers]


def test_the_next_grant_pays_where_a_tier_is_full(tiered: Market) -> None:
    assert list_paid(tiered) == [("compute", 600, 1)]


def test_the_oldest_grant_pays_while_its_tier_lets_it(tiered: Market) -> None:
    cap_tiers(tiered, "compute", 30_000, 1_200)
    assert list_paid(tiered) == [("compute", 600, 0)]


def test_the_grant_that_may_pay_most_pays_where_none_may_pay_all(tiered: Market) -> None:
    cap_tiers(tiered, "compute", 500, 1_000)
    assert list_paid(tiered) == [("compute", 500, 1)]
    cap_tiers(tiered, "compute", 300, 1_000)
    assert list_paid(tiered) == [("compute", 400, 0)]


def test_another_programme_pays_where_none_of_the_first_can(tiered: Market) -> None:
    tiered.award("model", 30_000)
    spent = device_line(tiered, large=700)
    with tiered.sessions.read() as session:
        answer = find_cover(session, spent, tiered.now)
        unfiled = find_cover(session, replace(spent, filed_base=False), tiered.now)
    assert [(cover.programme, cover.amount_fen) for cover in answer.covers] == [("model", 600)]
    assert [(refusal.programme, refusal.code) for refusal in answer.refusals] == [("compute", "too_small")]
    assert (unfiled.covers, [row.code for row in unfiled.refusals]) == ([], ["too_small", "base_not_filed"])


def test_the_lines_of_one_bill_keep_within_the_tiers(tiered: Market) -> None:
    cap_tiers(tiered, "compute", 30_000, 1_000)
    for small, large, paid in ((0, 0, 600), (0, 600, 400), (400, 600, 100), (400, 700, 0)):
        with tiered.sessions.read() as session:
            covers = find_cover(session, device_line(tiered, small=small, large=large), tiered.now).covers
        assert sum(cover.amount_fen for cover in covers) == paid


def device_line(market: Market, **reserved: int) -> LineToCover:
    """Return an hour of device time after other lines of the bill, by the tier that those take money of."""
    with market.sessions.read() as session:
        query = select(Grant.id, Application.tier).join(Application, Application.id == Grant.application_id)
        taken = {key: reserved.get(tier or "", 0) for key, tier in session.execute(query)}
    return LineToCover(
        market.owner("factory"), "device_ms", 1201, filed_base=True, via_city_platform=True, reserved=taken
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    awards=st.lists(st.tuples(st.sampled_from(TIERS), st.integers(1, 400)), min_size=1, max_size=4),
    caps=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    firm_cap=st.integers(500, 700),
    used=st.lists(st.integers(0, 499 * FEN // PER_TOKEN), min_size=1, max_size=4),
    together=st.booleans(),
)
def test_caps_hold_shares_are_floored_once_and_nothing_is_left_that_could_pay(
    built_market: Market,
    awards: list[tuple[str, int]],
    caps: tuple[int, int],
    firm_cap: int,
    used: list[int],
    together: bool,
) -> None:
    with copied(built_market) as market:
        cap_tiers(market, "model", 30_000, 30_000)
        for serial, (tier, amount) in enumerate(awards):
            award(market, amount, contract_no=f"HT-{serial}", tier=tier)
        cap_tiers(market, "model", *caps, per_firm_cap_fen=firm_cap)
        limits = dict(zip(TIERS, caps, strict=True))
        live(market, used, limits, firm_cap=firm_cap, together=together)
        check_month(market, limits, firm_cap=firm_cap)
        assert_sound(market)


def live(market: Market, used: list[int], limits: dict[str, int], *, firm_cap: int, together: bool) -> None:
    """Call all month, each hold settled before the next or all of them open together, and close the month."""
    market.fund("factory", FUNDS, "bank-1")
    for serial, tokens in enumerate(used):
        asked = LineToCover(market.owner("factory"), "completion", 500, filed_base=True, via_city_platform=False)
        with market.sessions.read() as session:
            refused = not find_cover(session, asked, market.now).covers
        assert refused == (read_room(market, limits, firm_cap=firm_cap) == 0)
        piece = draw(market, str(serial))
        read_room(market, limits, firm_cap=firm_cap)
        use(market, piece, tokens)
        if not together:
            market.settle()
            market.now += timedelta(minutes=2)
    market.settle()
    market.now = DECEMBER
    close_month(market)
    assert close_month(market) == 0


def read_room(market: Market, limits: dict[str, int], *, firm_cap: int) -> int:
    """Check the caps and return what the grants together could still pay."""
    with market.sessions.read() as session:
        rows = list_grants(session, market.owner("factory"))
        tiers = {row.grant.id: session.get_one(Application, row.grant.application_id).tier or "" for row in rows}
        left = {row.grant.id: session.get_one(Account, row.grant.account_id).available_fen for row in rows}
    room = firm_cap - sum(map(count_used, rows))
    by_tier = {
        tier: cap - sum(count_used(row) for row in rows if tiers[row.grant.id] == tier) for tier, cap in limits.items()
    }
    assert room >= 0
    assert min(by_tier.values()) >= 0
    return min(room, sum(min(by_tier[tier], sum(left[key] for key in left if tiers[key] == tier)) for tier in limits))


def count_used(row: GrantBalance) -> int:
    return row.held_fen + row.settled_fen


def check_month(market: Market, limits: dict[str, int], *, firm_cap: int) -> None:
    room = read_room(market, limits, firm_cap=firm_cap)
    with market.sessions.read() as session:
        lines = session.scalars(select(BillLine).where(BillLine.rule_version_id.is_not(None))).all()
        settled = sum(row.settled_fen for row in list_grants(session, market.owner("factory")))
    assert settled == sum(line.subsidised_fen for line in lines)
    for line in lines:
        share = line.posted_fen * line.share_num // line.share_den
        assert line.subsidised_fen <= share
        assert line.subsidised_fen == share or room == 0
