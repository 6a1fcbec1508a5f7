"""Many at once through the services: one voucher, one purse, one gateway key; nothing is spent twice."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import func, select

from hub.ledger.audit import check_books
from hub.orders import service
from hub.orders.rules import InsufficientFundsError, QuoteStaleError
from hub.orders.tables import Allowance, Order, UsageTranche
from hub.vouchers.service import list_grants
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

WORKERS = 6


def test_many_orders_on_one_voucher_and_one_purse(market: Market) -> None:
    market.award("model", 4_000)
    market.fund("factory", 9_000, "bank-1")
    # Each quote holds 1500 of the voucher and 2701 in cash, so that two of six fit.
    quotes = [market.quote(offer="city").id for _ in range(WORKERS)]
    barrier = Barrier(WORKERS)

    def accept(quote_id: str) -> bool:
        barrier.wait()
        try:
            with market.sessions.write() as session:
                service.accept_quote(
                    session, market.actors["factory"], quote_id, idempotency_key=quote_id, now=market.now
                )
        except (InsufficientFundsError, QuoteStaleError):
            return False
        return True

    with ThreadPoolExecutor(WORKERS) as pool:
        accepted = sum(pool.map(accept, quotes))
    with market.sessions.read() as session:
        held = session.scalar(select(func.sum(Order.held_fen)))
        grant = list_grants(session, market.owner("factory"))[0]
        money = service.wallet(session, market.owner("factory"))
        assert accepted == session.scalar(select(func.count()).select_from(Order)) > 0
        assert held == grant.held_fen + money.held_fen
        assert grant.left_fen >= 0
        assert money.available_fen >= 0
        assert check_books(session) == []


def test_many_gateways_on_one_purse(market: Market) -> None:
    market.fund("factory", 777, "bank-1")
    barrier = Barrier(WORKERS)

    def draw(worker: int) -> int:
        barrier.wait()
        answers = [market.draw(f"{worker}-{turn}", want_ufen=60_000_000) for turn in range(5)]
        return sum(answer.amount_ufen for answer in answers if isinstance(answer, AllowanceGrant))

    with ThreadPoolExecutor(WORKERS) as pool:
        granted = sum(pool.map(draw, range(WORKERS)))
    with market.sessions.read() as session:
        held = sum(session.scalars(select(UsageTranche.held_fen)))
        assert granted == sum(session.scalars(select(Allowance.amount_ufen))) <= 777_000_000
        assert held <= 777
        assert check_books(session) == []


def test_one_key_from_many_is_one_slice(market: Market) -> None:
    market.fund("factory", 1_000, "bank-1")
    barrier = Barrier(WORKERS)

    def draw(_: int) -> object:
        barrier.wait()
        return market.draw("same")

    with ThreadPoolExecutor(WORKERS) as pool:
        assert len(set(pool.map(draw, range(WORKERS)))) == 1
