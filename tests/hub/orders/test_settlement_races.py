"""The same request many times at once on PostgreSQL: one rental, one payout, one correction; nothing is spent twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import create_engine, func, select, text

from hub.database import open_sessions
from hub.errors import GuanmoError
from hub.ledger.audit import check_books
from hub.orders import rentals
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import BillVersion, Order
from hub.payouts import service as payouts
from hub.payouts.tables import Payout
from hub.tables import import_tables, metadata
from tests.hub.money.market import Market, build_market
from tests.hub.orders.test_rentals import HOUR_MS, Shop

WORKERS = 6


@pytest.fixture(scope="module")
def shop(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The market with its rich factory and an offer, on PostgreSQL."""
    admin = create_engine(postgresql.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE settlement"))
    admin.dispose()
    import_tables()
    opened = open_sessions(postgresql.format(database="settlement"))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    home: Path = tmp_path_factory.mktemp("settlement")
    market = build_market(opened, datetime(2026, 11, 21, 3, 0, tzinfo=UTC), home)
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    yield Shop(market)
    opened.close()


def race(act: Callable[[int], str]) -> list[str]:
    """Let all start together; a coded refusal is an answer too."""
    barrier = Barrier(WORKERS)

    def one(worker: int) -> str:
        barrier.wait()
        try:
            return act(worker)
        except GuanmoError as error:
            return error.code

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, range(WORKERS)))


def count(market: Market, table: type) -> int:
    with market.sessions.read() as session:
        assert check_books(session) == []
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_each_request_counts_once(shop: Shop) -> None:
    market = shop.market
    assert len(set(race(lambda _: shop.rent("same").id))) == 1
    assert count(market, Order) == 1
    rental = shop.rent("same")
    shop.send(shop.report(rental, 1, HOUR_MS // 2, at=1800))

    def extend(_worker: int) -> str:
        with market.sessions.write() as session:
            rentals.extend_rental(
                session,
                market.actors["factory"],
                rental.id,
                device_ms=HOUR_MS,
                idempotency_key="more",
                now=shop.later(60),
            )
        return "extended"

    assert race(extend) == ["extended"] * WORKERS
    assert count(market, Order) == 2
    report = shop.report(rental, 2, HOUR_MS, at=3600)
    assert len(set(race(lambda _: shop.send(report).id))) == 1
    race(lambda _: str(shop.end(rental, at=3700).state))
    assert shop.payable() == 1201

    def correct(_worker: int) -> str:
        with market.sessions.write() as session:
            wanted = Wanted("the meter stood still", {"device_ms": HOUR_MS // 2, "trained_tokens": 0})
            order = rentals.list_rental_orders(session, rental.id)[0]
            propose_correction(session, market.actors["operator"], order.id, wanted, now=shop.later(4000))
        return "posted"

    assert sorted(race(correct)) == ["conflict"] * (WORKERS - 1) + ["posted"]
    assert count(market, BillVersion) == 1
    assert shop.payable() == 600

    def ask(worker: int) -> str:
        with market.sessions.write() as session:
            key = "one" if worker % 2 else "two"
            return payouts.request_payout(
                session, market.actors["provider"], amount_fen=400, idempotency_key=key, now=shop.now
            ).id

    answers = race(ask)
    assert len({answer for answer in answers if answer.startswith("pay_")}) == 1
    assert set(answers) - {"not_enough_earned"} == {next(one for one in answers if one.startswith("pay_"))}
    assert count(market, Payout) == 1
