"""Faults 8, 9, 10: clocks and zones turned, the turn of the year, a rule changed under way."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.app import create_api
from hub.clock import read_clock
from hub.database_clock import DatabaseClock, choose_clock
from hub.ledger.periods import month_key, year_key
from hub.orders import service as orders
from hub.orders.leases import LEASE_S, list_lapsing
from hub.orders.tables import Charge, Order, Quote
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from hub.vouchers import service as vouchers
from hub.vouchers.tables import RuleVersion
from hub.worker import build_work
from tests.faults.ground import Ground
from tests.faults.story import HOUR_MS
from tests.faults.tally import Tally, take_tally
from tests.hub.money.market import Market

NEW_YEARS_EVE = datetime(2026, 12, 31, 15, 50, tzinfo=UTC)
"""23:50 in Shanghai; in UTC it is the afternoon of the old year for 8 more hours."""


@pytest.fixture(params=["UTC", "America/New_York", "Pacific/Kiritimati"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process lives in another time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def order(market: Market, key: str) -> tuple[Quote, Order]:
    quote = market.quote()
    with market.sessions.write() as session:
        made = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=market.now)
    return quote, made


def settle(market: Market, made: Order) -> list[Charge]:
    with market.sessions.write() as session:
        orders.settle_order(
            session, made.id, metered={"device_ms": HOUR_MS, "trained_tokens": 1_000_000}, now=market.now
        )
        return list(session.scalars(select(Charge).where(Charge.order_id == made.id).order_by(Charge.meter)))


def tally_orders(market: Market, name: str, *keys: str) -> Tally:
    """Measure the orders of these keys."""
    with market.sessions.read() as session:
        found = list(session.scalars(select(Order.idempotency_key)))
    return take_tally(market.sessions, name, sent=keys, acked=keys, found=found)


def cross_the_year(market: Market) -> list[tuple[str, str]]:
    """Order at 23:50 on New Year's Eve, settle at 00:20, quote again; return what each quote's compute line says."""
    market.now = NEW_YEARS_EVE
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 50_000, "bank-1")
    quote, made = order(market, "eve")
    market.now += timedelta(minutes=30)
    charges = settle(market, made)
    again = market.quote()
    return [
        (charges[0].month, quote.lines[0].covers[0].period_key),
        (str(len(again.lines[0].covers)), again.lines[0].notes[0]["code"]),
    ]


def test_the_year_is_the_rules_year_in_any_zone(ground: Ground, zone: str) -> None:
    """Faults 8 and 9: process and database in other zones; the hold's Shanghai year counts, the new has no grant."""
    url = ground.copy()
    with ground.market(url) as market:
        if ground.kind == "postgresql":
            with market.sessions.engine.begin() as connection:
                name = connection.exec_driver_sql("SELECT current_database()").scalar()
                connection.exec_driver_sql(f"ALTER DATABASE {name} SET timezone TO '{zone}'")
            market.sessions.close()
        assert cross_the_year(market) == [("2027-01", "2026"), ("0", "no_grant")]
        tally = tally_orders(market, f"8 9 year edge in {zone}", "eve")
    ground.drop(url)
    assert tally.sound, tally


def test_a_clock_a_day_wrong_moves_no_period_that_is_stored(market: Market) -> None:
    """Fault 8: the clock steps a day back and forth between hold and settlement; what was pinned stays pinned."""
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 50_000, "bank-1")
    quote, made = order(market, "skew")
    market.now -= timedelta(days=1)
    charges = settle(market, made)
    assert charges[0].rule_version_id == quote.lines[0].covers[0].rule_version_id
    market.now += timedelta(days=2)
    assert settle(market, made)[0].id == charges[0].id
    assert tally_orders(market, "8 clock a day wrong", "skew").sound


@pytest.mark.parametrize("wrong_days", [-1, 1])
def test_a_wrong_wall_clock_does_not_show_on_postgresql(
    postgresql_ground: Ground, wrong_days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 8: this machine is a day off, and steps once more under way; hub and worker go by the server's clock."""
    wrong = [timedelta(days=wrong_days)]
    monkeypatch.setattr("hub.database_clock.read_clock", lambda: read_clock() + wrong[0])
    url = postgresql_ground.copy()
    with postgresql_ground.market(url) as market:
        clock = choose_clock(market.sessions)
        assert abs(clock() - read_clock()) < timedelta(seconds=5)
        market.now = clock()
        market.award("compute", 20_000, contract_no="B")
        market.fund("factory", 50_000, "bank-1")
        quote, made = order(market, "wrong")
        wrong[0] *= 3  # NTP steps, the wrong way
        market.now = clock()
        assert quote.lines[0].covers[0].period_key == year_key(read_clock())
        with market.sessions.read() as session:
            assert [row.id for row in list_lapsing(session, clock())] == []
            assert [row.id for row in list_lapsing(session, clock() + timedelta(seconds=LEASE_S))] == [made.id]
        charges = settle(market, made)
        assert charges[0].rule_version_id == quote.lines[0].covers[0].rule_version_id
        assert charges[0].month == month_key(read_clock())
        tally = tally_orders(market, f"8 machine {wrong_days:+d} d off", "wrong")
    postgresql_ground.drop(url)
    assert tally.sound, tally


def test_hub_and_worker_go_by_the_servers_clock(postgresql_ground: Ground, tmp_path: Path) -> None:
    """Both processes choose it by themselves; on a file they share this machine's clock."""
    settings = Settings(home=tmp_path, database_url=postgresql_ground.copy())
    app = create_api(settings, secrets=Secrets({name: f"{name} here" for name in NAMES}))
    assert isinstance(app.extensions["guanmo"].clock, DatabaseClock)
    assert isinstance(build_work(settings, {}).clock, DatabaseClock)
    on_file = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'hub.sqlite3'}")
    assert build_work(on_file, {}).clock is read_clock


def test_a_skewed_sweeper_frees_no_money_of_a_living_order(market: Market) -> None:
    """Fault 8: every chore that goes by time runs a day early, then a day late; the order's holds stay."""
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 50_000, "bank-1")
    quote, made = order(market, "swept")
    for days in (1, -1):
        later = market.now + timedelta(days=days)
        with market.sessions.write() as session:
            orders.settle_tranches(session, later)
            orders.end_due_rentals(session, later)
            orders.expire_quotes(session, later)
            vouchers.lapse_grants(session, later)
    with market.sessions.read() as session:
        assert orders.wallet(session, market.owner("factory")).held_fen == quote.self_paid_fen
    assert settle(market, made)[0].voucher_fen == quote.lines[0].voucher_fen
    assert tally_orders(market, "8 sweeper a day off", "swept").sound


def test_the_pinned_rule_wins_over_a_newer_one(market: Market) -> None:
    """Fault 10: the share falls from a half to a fifth while the order runs."""
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 50_000, "bank-1")
    _, made = order(market, "old-rule")
    with market.sessions.write() as session:
        old = session.scalars(select(RuleVersion).where(RuleVersion.tz == "Asia/Shanghai")).all()
        body = next(rule.body for rule in old if rule.body["eligible_meters"] == ["device_ms"])
        drafted = vouchers.draft_rule(
            session,
            market.actors["checker"],
            programme="compute",
            body={**body, "share": {"num": 1, "den": 5}},
            effective_from_at=market.now + timedelta(minutes=1),
            effective_to_at=None,
            source="test",
            now=market.now,
        )
        vouchers.approve_rule(session, market.actors["approver"], drafted.id, now=market.now)
    market.now += timedelta(minutes=5)
    charge = settle(market, made)[0]
    assert (charge.share_num, charge.share_den, charge.voucher_fen) == (1, 2, charge.fee_fen // 2)
    assert market.quote().lines[0].covers[0].share_den == 5
    assert tally_orders(market, "10 rule changed under way", "old-rule").sound
