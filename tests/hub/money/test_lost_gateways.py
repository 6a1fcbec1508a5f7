"""The operator ends the allowance of a lost gateway: what arrived is billed, the rest of the money is free again."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from hub.errors import ForbiddenError, InvalidValueError, NotFoundError
from hub.events.tables import Event
from hub.ledger.audit import check_books
from hub.orders import service
from hub.orders.closing import AllowanceInUseError
from hub.orders.tables import Allowance, BillLine
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

TEN_FEN = (0, 0, 12_500)


@pytest.fixture
def lost(market: Market) -> tuple[Market, str]:
    """An allowance of which ten fen are spent and whose gateway never comes back."""
    market.fund("factory", 10_000, "bank-1")
    piece = market.draw("a")
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, "r1", TEN_FEN))
    market.now += timedelta(minutes=5)
    return market, piece.allowance_id


def end(market: Market, allowance_id: str, who: str = "operator", reason: str = "host burnt") -> Allowance:
    with market.sessions.write() as session:
        return service.end_lost_allowance(session, market.actors[who], allowance_id, reason=reason, now=market.now)


def available(market: Market) -> int:
    with market.sessions.read() as session:
        assert check_books(session) == []
        return service.wallet(session, market.owner("factory")).available_fen


def test_what_arrived_is_billed_and_the_rest_is_free(lost: tuple[Market, str]) -> None:
    market, allowance_id = lost
    assert market.settle() == 0
    assert available(market) == 9_500
    ended = end(market, allowance_id)
    assert (ended.state, ended.spent_ufen, ended.claimed_ufen) == ("closed", 10_000_000, None)
    assert market.settle() == 1
    assert available(market) == 9_990
    with market.sessions.read() as session:
        assert session.scalars(select(BillLine.posted_fen)).one() == 10
        event = session.scalars(select(Event).where(Event.topic == "allowance.ended")).one()
        assert (event.subject, event.actor_id) == (allowance_id, market.actors["operator"].user_id)
        assert event.payload == {"rated_ufen": 10_000_000, "reason": "host burnt", "witnessed_calls": 0}


def test_ending_twice_is_one_event_and_later_usage_is_refused(lost: tuple[Market, str]) -> None:
    market, allowance_id = lost
    end(market, allowance_id)
    end(market, allowance_id, reason="again")
    market.close(allowance_id, spent_ufen=99, through_seq=1)
    late = market.send(market.record(allowance_id, "r2", TEN_FEN), first_seq=2)
    assert [item.code for item in late.rejected] == ["allowance_closed"]
    with market.sessions.read() as session:
        topics = session.scalars(select(Event.topic).where(Event.subject == allowance_id)).all()
    assert topics == ["allowance.ended"]


def test_a_living_allowance_other_people_and_no_reason_are_refused(lost: tuple[Market, str]) -> None:
    market, allowance_id = lost
    fresh = market.draw("b")
    assert isinstance(fresh, AllowanceGrant)
    with pytest.raises(AllowanceInUseError, match="until"):
        end(market, fresh.allowance_id)
    with pytest.raises(ForbiddenError):
        end(market, allowance_id, who="factory")
    with pytest.raises(InvalidValueError, match="reason"):
        end(market, allowance_id, reason="  ")
    with pytest.raises(NotFoundError):
        end(market, "alw_nowhere")
    with market.sessions.read() as session:
        overdue = service.list_overdue_allowances(session, market.actors["auditor"], market.now)
        assert [row.id for row in overdue] == [allowance_id]
        with pytest.raises(ForbiddenError):
            service.list_overdue_allowances(session, market.actors["factory"], market.now)
