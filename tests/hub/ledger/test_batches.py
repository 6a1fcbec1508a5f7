"""Many groups in one call: as if posted one after the other, all or none, repeats answered."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from hub import driver
from hub.database import Sessions
from hub.ledger import at_once, embedded, statements
from hub.ledger.audit import check_books
from hub.ledger.movements import hold, move, resolve
from hub.ledger.rules import AccountLimitError, TransferConflictError
from hub.ledger.service import Group, post_group, post_groups
from hub.ledger.tables import Transfer
from tests.hub.ledger.books import Books, by, open_books


def groups_of(books: Books, now: datetime, *, count: int, amount_fen: int = 1) -> list[Group]:
    return [
        Group(f"g{turn}", [move(f"m{turn}", books.cash, books.clearing, amount_fen=amount_fen, code="c")], by(now))
        for turn in range(count)
    ]


def test_a_batch_is_posted_with_versions_in_order(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        assert post_groups(session, groups_of(books, now, count=50)) == [True] * 50
        assert (books.cash.available_fen, books.cash.version) == (50, 51)
    with both.read() as session:
        assert check_books(session) == []


def test_a_batch_takes_as_many_statements_as_one_transfer(
    both: Sessions, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def note(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(connection: Connection, statement: str, *given: Any, **more: Any) -> Any:
            sent.append(statement)
            return work(connection, statement, *given, **more)

        return noted

    execute = note(driver.execute)
    for module in (driver, statements, embedded):
        monkeypatch.setattr(module, "execute", execute)
    monkeypatch.setattr(embedded, "insert_whole", note(driver.insert_whole))
    monkeypatch.setattr(at_once, "call_routine", note(driver.call_routine))
    counts = []
    with both.write() as session:
        books = open_books(session, now)
        for groups in (groups_of(books, now, count=1), groups_of(books, now, count=20)[1:]):
            sent.clear()
            post_groups(session, groups)
            counts.append(len(sent))
    # The posting, and the new sides of the accounts that the session has loaded.
    assert counts == ([5, 5] if both.engine.dialect.name == "sqlite" else [2, 2])


def test_one_refusal_refuses_the_whole_batch(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        with pytest.raises(AccountLimitError):
            post_groups(session, groups_of(books, now, count=4, amount_fen=30))
        assert session.scalar(select(func.count()).select_from(Transfer)) == 1
        assert books.cash.available_fen == 100


def test_repeats_within_and_across_batches_change_nothing(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        wanted = groups_of(books, now, count=3)
        post_groups(session, wanted[:2])
        assert post_groups(session, [*wanted, wanted[2], wanted[0]]) == [False, False, True, False, False]
        assert books.cash.available_fen == 97
        other = Group("g1", [move("m1", books.cash, books.clearing, amount_fen=2, code="c")], by(now))
        with pytest.raises(TransferConflictError):
            post_groups(session, [other])
        with pytest.raises(TransferConflictError):
            post_groups(session, [Group("g9", wanted[0].movements, by(now))])
        with pytest.raises(TransferConflictError):
            post_groups(session, [Group("g0", [*wanted[0].movements, *wanted[1].movements], by(now))])


def test_a_batch_may_hold_and_end_what_it_holds(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        wanted = hold("h", books.cash, books.clearing, amount_fen=60, code="c")
        held = Transfer(id="h", debit_id=books.cash.id, credit_id=books.clearing.id, amount_fen=60)
        end = resolve("p", held, amount_fen=20, code="c")
        post_groups(session, [Group("g1", [wanted], by(now)), Group("g2", [end], by(now))])
        assert (books.cash.available_fen, books.cash.debits_pending) == (80, 0)
        assert post_group(session, "g2", [end], by(now))[0].pending_id == "h"
