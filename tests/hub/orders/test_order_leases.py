"""Leases of orders: a living job keeps its money held, a dead one's is released, and the end races the sweep safely."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import create_engine, func, select, text

from hub.database import open_sessions
from hub.errors import ConflictError, GuanmoError
from hub.ledger.tables import HoldLease, Transfer
from hub.orders import service
from hub.orders.leases import LEASE_S, OrderAliveError, end_dead_order, keep_alive, list_lapsing
from hub.orders.tables import Order, OrderState
from hub.tables import import_tables, metadata
from hub.tuning.keeping_holds import keep_holds
from tests.hub.money.market import Market, build_market
from tests.hub.orders.call_steps import assert_sound
from tests.hub.orders.test_corrections import FULL
from tests.hub.orders.test_rentals import Shop, shop

__all__ = ["shop"]
LEASE = timedelta(seconds=LEASE_S)


@pytest.fixture(scope="module")
def on_postgresql(postgresql: str, built_market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with money on PostgreSQL, changed by every test of this file that asks."""
    admin = create_engine(postgresql.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE leases"))
    admin.dispose()
    import_tables()
    opened = open_sessions(postgresql.format(database="leases"))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    market = build_market(opened, built_market.now, tmp_path_factory.mktemp("leases"))
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 100_000, "bank-1")
    yield market
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Market:
    name = "rich" if request.param == "sqlite" else "on_postgresql"
    found: Market = request.getfixturevalue(name)
    return found


def hold(market: Market) -> Order:
    quote = market.quote()
    with market.sessions.write() as session:
        return service.accept_quote(
            session, market.actors["factory"], quote.id, idempotency_key=quote.id, now=market.now
        )


def sweep(market: Market, after: timedelta) -> int:
    with market.sessions.write() as session:
        return keep_holds(session, market.now + after)


def held_fen(market: Market) -> int:
    with market.sessions.read() as session:
        return service.wallet(session, market.owner("factory")).held_fen


def state_of(market: Market, order: Order) -> Order:
    with market.sessions.read() as session:
        return session.get_one(Order, order.id)


def test_an_order_without_a_job_keeps_its_money_for_the_lease_and_no_longer(either: Market) -> None:
    order = hold(either)
    assert sweep(either, LEASE - timedelta(seconds=1)) == 0
    assert state_of(either, order).state is OrderState.HELD
    assert sweep(either, LEASE) == 1
    assert sweep(either, LEASE) == 0
    ended = state_of(either, order)
    assert (ended.state, ended.fault, ended.reason_code) == (OrderState.REFUNDED, "platform", "hold_expired")
    assert held_fen(either) == 0
    with either.sessions.read() as session:
        codes = session.scalars(select(Transfer.code).where(Transfer.business_id == order.id, Transfer.kind == "void"))
        assert set(codes) == {"expired"}
    with pytest.raises(ConflictError, match="was refunded"):
        settle(either, order, LEASE)
    assert_sound(either)


def settle(market: Market, order: Order, after: timedelta) -> Order:
    with market.sessions.write() as session:
        return service.settle_order(session, order.id, metered=FULL, now=market.now + after)


def test_a_late_end_revives_what_expired_and_posts_it(either: Market) -> None:
    order = hold(either)
    assert settle(either, order, 3 * LEASE).charged_fen == 4201
    assert sweep(either, 4 * LEASE) == 0
    assert_sound(either)


def test_a_heartbeat_renews_once_half_the_lease_is_over(either: Market) -> None:
    order = hold(either)
    assert not beat(either, order, LEASE / 2 - timedelta(seconds=1))
    assert beat(either, order, LEASE / 2)
    with either.sessions.read() as session:
        assert order.id not in [row.id for row in list_lapsing(session, either.now + LEASE / 2)]
    with either.sessions.write() as session, pytest.raises(OrderAliveError):
        end_dead_order(session, order.id, now=either.now + LEASE)
    settle(either, order, LEASE)
    assert not beat(either, order, 9 * LEASE)
    with either.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(HoldLease)) == 0


def beat(market: Market, order: Order, after: timedelta) -> bool:
    with market.sessions.write() as session:
        return keep_alive(session, order.id, now=market.now + after)


def test_a_running_rental_is_never_swept_and_one_that_is_over_is(shop: Shop) -> None:
    rental = shop.rent()
    for hours in range(1, 6):
        assert sweep(shop.market, timedelta(hours=hours)) == 0
    assert held_fen(shop.market) > 0
    shop.end(rental, at=60)
    assert (held_fen(shop.market), sweep(shop.market, 9 * LEASE)) == (0, 0)
    assert_sound(shop.market)


def test_settlement_and_sweep_at_the_same_moment_never_both_win(on_postgresql: Market) -> None:
    market, wins = on_postgresql, []
    for _ in range(8):
        order = hold(market)
        outcomes = race(
            lambda order=order: settle(market, order, LEASE).state,  # type: ignore[misc]
            lambda: str(sweep(market, LEASE)),
            lambda order=order: settle(market, order, LEASE).state,  # type: ignore[misc]
        )
        ended = state_of(market, order)
        wins.append(str(ended.state))
        assert ended.state is not OrderState.HELD, outcomes
        assert (ended.charged_fen == 4201) == (ended.state is OrderState.SETTLED), outcomes
        assert held_fen(market) == 0
        market.fund("factory", 5_000, f"bank-{order.id}")
    assert_sound(market)


def race(*acts: Callable[[], object]) -> list[str]:
    barrier = Barrier(len(acts))

    def one(act: Callable[[], object]) -> str:
        barrier.wait()
        try:
            return str(act())
        except GuanmoError as error:
            return error.code

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(one, acts))
