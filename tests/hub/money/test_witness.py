"""The engines' witness: rows kept once, three counts compared, alarms raised once, a lost gateway billed from it."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from hub.clock import to_us
from hub.errors import InvalidValueError
from hub.events.tables import Event
from hub.ledger.audit import check_books
from hub.metering import reconciling
from hub.metering.tables import EngineWitness, Usage
from hub.metering.witness import take_witness
from hub.orders import service
from serving.contract import AllowanceGrant, EndReason, EngineReading, Witness, WitnessBatch
from tests.hub.money.market import Market

TEN_FEN = 12_500


@pytest.fixture
def called(market: Market) -> tuple[Market, str]:
    """An allowance with money in it."""
    market.fund("factory", 10_000, "bank-1")
    piece = market.draw("a")
    assert isinstance(piece, AllowanceGrant)
    return market, piece.allowance_id


def row(
    seq: int, request_id: str, prompt: int, completion: int, allowance_id: str | None = None, *, attempt: int = 0
) -> Witness:
    account = (allowance_id, "key_1", "ver_1") if allowance_id else (None, None, None)
    return Witness("rep_1", 1, seq, request_id, attempt, prompt, completion, prompt, 0, *account)


def take(market: Market, *rows: Witness, reading: EngineReading | None = None) -> int:
    with market.sessions.write() as session:
        return take_witness(session, WitnessBatch(rows, (reading,) if reading else ()), market.now)


def read(market: Market, through_seq: int, prompt: int, completion: int) -> EngineReading:
    return EngineReading("rep_1", 1, through_seq, prompt, completion, to_us(market.now))


def reconcile(market: Market) -> reconciling.Reconciled:
    with market.sessions.read() as session:
        (found,) = reconciling.reconcile(session, market.now)
    return found


def raise_alarms(market: Market) -> int:
    with market.sessions.write() as session:
        return reconciling.raise_alarms(session, market.now)


def test_every_token_of_an_engine_is_explained(called: tuple[Market, str]) -> None:
    market, allowance_id = called
    market.send(market.record(allowance_id, "r1", (100, 0, 40)))
    rows = (row(1, "pool-1", 256, 1), row(2, "r1", 100, 45, allowance_id), row(3, "r2", 7, 9, allowance_id))
    assert take(market, *rows, reading=read(market, 3, 363, 55)) == 3
    assert take(market, *rows) == 0
    found = reconcile(market)
    assert (found.own_prompt, found.own, found.billed_prompt, found.billed) == (256, 1, 100, 40)
    assert (found.undelivered, found.awaited, found.witnessed) == (5, 9, 55)
    assert found.billed + found.undelivered + found.own + found.awaited == found.witnessed
    assert (found.drift, found.drift_prompt, found.alarms) == (0, 0, ())
    assert raise_alarms(market) == 0


def test_readings_add_up_over_time_and_an_old_one_changes_nothing(called: tuple[Market, str]) -> None:
    market, _ = called
    take(market, row(1, "pool-1", 256, 1), reading=read(market, 1, 256, 1))
    take(market, row(2, "pool-2", 4, 1), reading=read(market, 2, 260, 2))
    take(market, reading=read(market, 1, 256, 1))
    found = reconcile(market)
    assert (found.drift, found.drift_prompt, found.rows) == (0, 0, 2)


def test_each_thing_wrong_is_one_alarm(called: tuple[Market, str]) -> None:
    market, allowance_id = called
    market.send(market.record(allowance_id, "r1", (100, 0, 41)))
    take(market, row(1, "r1", 100, 40, allowance_id), reading=read(market, 1, 100, 44))
    take(market, row(2, "r2", 7, 9, allowance_id))
    assert reconcile(market).alarms == ("counters_differ", "billed_above_engine")
    assert raise_alarms(market) == 2
    market.now += timedelta(minutes=11)
    assert reconcile(market).alarms == ("counters_differ", "records_missing", "billed_above_engine")
    assert (raise_alarms(market), raise_alarms(market)) == (1, 0)
    with market.sessions.read() as session:
        subjects = session.scalars(select(Event.subject).where(Event.topic == "metering.drifted")).all()
    assert sorted(subjects) == [
        f"rep_1/1/{code}" for code in ("billed_above_engine", "counters_differ", "records_missing")
    ]


def test_a_lost_gateways_calls_are_billed_from_the_witness_once(called: tuple[Market, str]) -> None:
    market, allowance_id = called
    market.send(market.record(allowance_id, "r1", (0, 0, TEN_FEN)))
    take(market, row(1, "r1", 0, TEN_FEN, allowance_id), row(2, "r2", 0, TEN_FEN, allowance_id))
    market.now += timedelta(minutes=5)
    with market.sessions.write() as session:
        ended = service.end_lost_allowance(
            session, market.actors["operator"], allowance_id, reason="host burnt", now=market.now
        )
        assert ended.spent_ufen == 20_000_000
    assert market.settle() == 1
    with market.sessions.read() as session:
        assert check_books(session) == []
        assert service.wallet(session, market.owner("factory")).available_fen == 9_980
        usage = session.get_one(Usage, ("r2", 0))
        assert (usage.end_reason, usage.completion_tokens, usage.replica_id) == (
            EndReason.GATEWAY_LOST,
            TEN_FEN,
            "rep_1",
        )
        event = session.scalars(select(Event).where(Event.topic == "allowance.ended")).one()
        assert event.payload["witnessed_calls"] == 1


def test_an_attempt_that_goes_on_pays_its_prompt_once(called: tuple[Market, str]) -> None:
    market, allowance_id = called
    first, second = row(1, "r1", 500, 10, allowance_id, attempt=1), row(2, "r1", 510, 20, allowance_id, attempt=2)
    take(market, first, second)
    market.now += timedelta(minutes=5)
    with market.sessions.write() as session:
        service.end_lost_allowance(session, market.actors["operator"], allowance_id, reason="gone", now=market.now)
        counts = [(u.attempt, u.prompt_tokens, u.completion_tokens) for u in session.scalars(select(Usage))]
    assert sorted(counts) == [(1, 500, 10), (2, 0, 20)]


def test_unsound_batches_are_refused_whole(called: tuple[Market, str]) -> None:
    market, _ = called
    with pytest.raises(InvalidValueError):
        take(market, row(1, "pool-1", 1, 1), row(2, "pool-2", -1, 1))
    with pytest.raises(InvalidValueError):
        take(market, *(row(number, "pool", 1, 1) for number in range(1, 502)))
    with market.sessions.read() as session:
        assert session.scalars(select(EngineWitness)).all() == []
