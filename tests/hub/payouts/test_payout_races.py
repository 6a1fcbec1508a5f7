"""Many at once on one payable account: what was earned leaves once, whoever asks, sends or concludes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from hub.errors import GuanmoError
from hub.ledger.audit import check_books
from hub.payouts import service
from hub.payouts.tables import PayoutState
from tests.hub.money.market import Market

WORKERS = 8


def race(market: Market, act: Callable[[int], object]) -> list[object]:
    """Let all start together; a coded refusal is an answer too."""
    barrier = Barrier(WORKERS)

    def one(worker: int) -> object:
        barrier.wait()
        try:
            return act(worker)
        except GuanmoError as error:
            return error.code

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, range(WORKERS)))


def test_one_of_many_gets_the_money(earner: Market) -> None:
    def ask(worker: int) -> str:
        with earner.sessions.write() as session:
            service.request_payout(
                session, earner.actors["provider"], amount_fen=3000, idempotency_key=f"k-{worker}", now=earner.now
            )
        return "asked"

    answers = race(earner, ask)
    assert sorted(set(answers), key=str) == ["asked", "not_enough_earned"]
    assert answers.count("asked") == 1


def test_the_same_key_is_one_payout_and_is_sent_and_paid_once(earner: Market) -> None:
    def ask(_worker: int) -> str:
        with earner.sessions.write() as session:
            return service.request_payout(
                session, earner.actors["provider"], amount_fen=3000, idempotency_key="k", now=earner.now
            ).id

    payout = race(earner, ask)
    assert len(set(payout)) == 1
    payout_id = str(payout[0])

    def send(_worker: int) -> str:
        with earner.sessions.write() as session:
            service.send_payout(session, earner.actors["operator"], payout_id, now=earner.now)
        return "sent"

    answers = race(earner, send)
    assert (answers.count("sent"), answers.count("payout_step")) == (1, WORKERS - 1)

    def conclude(worker: int) -> str:
        result = PayoutState.PAID if worker % 2 else PayoutState.FAILED
        with earner.sessions.write() as session:
            service.conclude_payout(
                session,
                earner.actors["operator"],
                payout_id,
                result=result,
                bank_reference="B" if worker % 2 else "",
                reason="" if worker % 2 else "refused",
                now=earner.now,
            )
        return str(result)

    answers = race(earner, conclude)
    assert len({answer for answer in answers if answer in ("paid", "failed")}) == 1
    with earner.sessions.read() as session:
        available, on_its_way = service.earned(session, earner.owner("provider"))
        assert on_its_way == 0
        assert available == (2000 if "paid" in answers else 5000)
        assert check_books(session) == []
