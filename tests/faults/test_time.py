"""Faults 8, 9, 10, 18: clocks and zones turned, the turn of the year, a rule changed under way, one pair of eyes."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from hub.errors import FourEyesError
from hub.orders import service as orders
from hub.orders.tables import Charge, Order, Quote
from hub.vouchers import service as vouchers
from hub.vouchers.tables import RuleVersion
from tests.faults.ground import Ground
from tests.faults.story import HOUR_MS
from tests.faults.tally import take_tally
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
        tally = take_tally(market.sessions, f"8 9 year edge in {zone}")
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
    assert take_tally(market.sessions, "8 clock a day wrong").sound


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
    assert take_tally(market.sessions, "10 rule changed under way").sound


def test_one_person_never_does_both(market: Market) -> None:
    """Fault 18: refused by the service, and by the database where the service is gone around."""
    with market.sessions.write() as session:
        rule = session.scalars(select(RuleVersion)).first()
        assert rule is not None
        drafted = vouchers.draft_rule(
            session,
            market.actors["checker"],
            programme="compute",
            body=rule.body,
            effective_from_at=market.now,
            effective_to_at=None,
            source="test",
            now=market.now,
        )
        with pytest.raises(FourEyesError):
            vouchers.approve_rule(session, market.actors["checker"], drafted.id, now=market.now)
    who = market.actors["checker"].user_id
    around = update(RuleVersion).where(RuleVersion.id == drafted.id)
    with pytest.raises(DBAPIError, match="four_eyes"), market.sessions.write() as session:
        session.execute(around.values(state="approved", approved_by=who))
    with market.sessions.read() as session:
        assert session.scalar(text("SELECT count(*) FROM rule_versions WHERE approved_by = drafted_by")) == 0
    assert take_tally(market.sessions, "18 one person for both").sound
