"""Payouts: held when asked for, posted when paid, released when failed, and never sent twice."""

from datetime import datetime, timedelta
from itertools import product

import pytest

from hub.errors import ConflictError, ForbiddenError, FourEyesError, IdempotencyConflictError, NotFoundError
from hub.ledger.invariants import check_invariants
from hub.payouts import service
from hub.payouts.rules import STEPS, PayoutRefusedError, PayoutStepError, check_step
from hub.payouts.service import NotEnoughEarnedError
from hub.payouts.tables import Payout, PayoutState
from tests.hub.money.market import Market


def ask(market: Market, amount_fen: int = 3000, key: str = "p-1", who: str = "provider") -> Payout:
    with market.sessions.write() as session:
        return service.request_payout(
            session, market.actors[who], amount_fen=amount_fen, idempotency_key=key, now=market.now
        )


def send(market: Market, payout: Payout, who: str = "operator") -> Payout:
    with market.sessions.write() as session:
        return service.send_payout(session, market.actors[who], payout.id, now=market.now)


def conclude(
    market: Market, payout: Payout, result: str, *, who: str = "operator", reference: str = "", reason: str = ""
) -> Payout:
    with market.sessions.write() as session:
        return service.conclude_payout(
            session,
            market.actors[who],
            payout.id,
            result=PayoutState(result),
            bank_reference=reference,
            reason=reason,
            now=market.now,
        )


def earned(market: Market) -> tuple[int, int]:
    with market.sessions.read() as session:
        assert [(found.invariant.id, found.examples) for found in check_invariants(session) if found.broken] == []
        return service.earned(session, market.owner("provider"))


def test_paid_money_leaves_once(earner: Market) -> None:
    payout = ask(earner)
    assert earned(earner) == (2000, 3000)
    assert ask(earner).id == payout.id
    send(earner, payout)
    for _ in range(2):
        done = conclude(earner, payout, "paid", reference="bank-77")
    assert [step.state for step in done.steps] == ["requested", "in_payout", "paid"]
    assert earned(earner) == (2000, 0)


def test_failed_money_comes_back_and_may_be_asked_for_anew(earner: Market) -> None:
    payout = ask(earner)
    send(earner, payout)
    conclude(earner, payout, "failed", reason="account closed")
    assert earned(earner) == (5000, 0)
    with pytest.raises(PayoutStepError):
        send(earner, payout)
    assert ask(earner, key="p-2").id != payout.id


def test_unknown_stays_held_and_is_settled_by_another_person(earner: Market) -> None:
    payout = ask(earner)
    send(earner, payout)
    conclude(earner, payout, "unknown", reason="time out")
    assert earned(earner) == (2000, 3000)
    with pytest.raises(PayoutStepError, match="does not become in_payout"):
        send(earner, payout)
    with pytest.raises(NotEnoughEarnedError, match="2000 fen are earned and free"):
        ask(earner, key="p-2")
    with pytest.raises(FourEyesError):
        conclude(earner, payout, "paid", reference="b", reason="found")
    with pytest.raises(PayoutRefusedError):
        conclude(earner, payout, "paid", who="checker", reference="b")
    conclude(earner, payout, "paid", who="checker", reference="b", reason="found in the statement")
    assert earned(earner) == (2000, 0)


def test_a_payout_is_taken_back_by_its_organisation_until_it_is_sent(earner: Market) -> None:
    payout = ask(earner)
    with pytest.raises(PayoutStepError):
        conclude(earner, payout, "withdrawn", reason="the operator's wish")
    for who in ("rival", "operator", "auditor"):
        with pytest.raises(NotFoundError):
            take_back(earner, payout, who)
    for _ in range(2):
        assert [step.state for step in take_back(earner, payout).steps] == ["requested", "withdrawn"]
    assert earned(earner) == (5000, 0)
    with pytest.raises(PayoutStepError):
        send(earner, payout)
    sent = send(earner, ask(earner, key="p-2"))
    with pytest.raises(PayoutStepError, match="until it is sent"):
        take_back(earner, sent)
    assert earned(earner) == (2000, 3000)


def take_back(market: Market, payout: Payout, who: str = "provider") -> Payout:
    with market.sessions.write() as session:
        return service.withdraw_payout(session, market.actors[who], payout.id, now=market.now)


def test_a_silent_bank_makes_it_unknown(earner: Market) -> None:
    payout = send(earner, ask(earner))
    for hours, count in ((23, 0), (24, 1), (48, 0)):
        assert age(earner, earner.now + timedelta(hours=hours)) == count
    with earner.sessions.read() as session:
        assert service.find_payout(session, earner.actors["auditor"], payout.id).state == "unknown"


def age(market: Market, now: datetime) -> int:
    with market.sessions.write() as session:
        return service.age_payouts(session, now)


def test_a_bank_reference_names_one_payout(earner: Market) -> None:
    one, two = ask(earner, 1000, "a"), ask(earner, 1000, "b")
    for payout in (one, two):
        send(earner, payout)
    conclude(earner, one, "paid", reference="bank-1")
    with pytest.raises(ConflictError, match="names payout"):
        conclude(earner, two, "paid", reference="bank-1")


@pytest.mark.parametrize(
    ("amount_fen", "error"),
    [
        (0, PayoutRefusedError),
        (-1, PayoutRefusedError),
        (2**63, PayoutRefusedError),
        (10.5, PayoutRefusedError),
        (5001, NotEnoughEarnedError),
    ],
)
def test_amounts_that_cannot_be_are_refused(earner: Market, amount_fen: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(earner, amount_fen)
    assert earned(earner) == (5000, 0)


def test_who_may_do_what(earner: Market) -> None:
    payout = ask(earner)
    with pytest.raises(IdempotencyConflictError):
        ask(earner, 2999)
    for who in ("provider", "auditor", "factory"):
        with pytest.raises(ForbiddenError):
            send(earner, payout, who)
    with pytest.raises(ForbiddenError):
        ask(earner, who="auditor")
    with pytest.raises(NotFoundError), earner.sessions.read() as session:
        service.find_payout(session, earner.actors["rival"], payout.id)


def test_nothing_that_was_sent_is_sent_again() -> None:
    assert [state for state in PayoutState if PayoutState.IN_PAYOUT in STEPS[state]] == [PayoutState.REQUESTED]
    refused = 0
    for before, after in product(PayoutState, PayoutState):
        if after not in STEPS[before]:
            refused += 1
            with pytest.raises(PayoutStepError):
                check_step(before, after)
    assert refused == 42
