"""The connection between two writes: kept once its transaction is over, and only then."""

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import UnboundExecutionError

from hub.database import Sessions, find_connection
from hub.spare import SpareConnection


def count_checkouts(engine: Engine) -> list[str]:
    seen: list[str] = []
    event.listen(engine, "checkout", lambda *_: seen.append("checkout"))
    return seen


def insert_and_fail(sessions: Sessions) -> None:
    with sessions.write() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        raise ZeroDivisionError


def test_a_write_goes_on_with_the_connection_of_the_last_one(sessions: Sessions) -> None:
    seen = count_checkouts(sessions.engine)
    for number in range(3):
        with sessions.write() as session:
            session.execute(text(f"CREATE TABLE t{number} (id INTEGER)"))
    assert len(seen) == 1
    with sessions.read() as session:
        assert session.execute(text("SELECT count(*) FROM t2")).scalar_one() == 0


def test_after_a_failure_the_next_write_has_one_from_the_pool(sessions: Sessions) -> None:
    seen = count_checkouts(sessions.engine)
    with sessions.write() as session:
        session.execute(text("CREATE TABLE t (id INTEGER)"))
    with pytest.raises(ZeroDivisionError):
        insert_and_fail(sessions)
    assert sessions.engine.pool.checkedout() == 0
    with sessions.write() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    assert len(seen) == 2


def test_one_that_rested_goes_by_the_pool(sessions: Sessions) -> None:
    seen = count_checkouts(sessions.engine)
    spare = SpareConnection(sessions.engine, rest_s=0)
    spare.keep(spare.take())
    spare.keep(spare.take())
    assert (len(seen), sessions.engine.pool.checkedout()) == (2, 1)
    spare.drop()
    assert sessions.engine.pool.checkedout() == 0


def test_only_one_is_kept_and_none_inside_a_transaction(sessions: Sessions) -> None:
    spare = SpareConnection(sessions.engine, rest_s=60)
    first, second, third = spare.take(), spare.take(), spare.take()
    third.execution_options(guanmo_mode="read").begin()
    for connection in (third, first, second):
        spare.keep(connection)
    assert (first.closed, second.closed, third.closed) == (False, True, True)
    assert spare.take() is first
    first.close()


def test_closing_closes_what_is_kept(sessions: Sessions) -> None:
    with sessions.write() as session:
        session.execute(text("SELECT 1"))
    pool = sessions.engine.pool
    assert pool.checkedout() == 1
    sessions.close()
    assert pool.checkedout() == 0


def test_a_session_that_is_over_gets_no_connection_of_another(sessions: Sessions) -> None:
    with sessions.write() as session:
        session.execute(text("SELECT 1"))
    with pytest.raises(UnboundExecutionError):
        session.execute(text("SELECT 1"))


def test_what_comes_back_after_the_end_is_not_kept(sessions: Sessions) -> None:
    with sessions.write() as session:
        connection = find_connection(session)
        sessions.close()
    assert connection.closed
