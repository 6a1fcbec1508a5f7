"""Postings that wait in one line go in one call, and each has its own answer or refusal."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from hub import combining, database
from hub.combining import Joint
from hub.database import Sessions
from hub.errors import NotFoundError
from hub.ledger import joint
from hub.ledger.audit import check_books
from hub.ledger.joint import Posting
from hub.ledger.movements import hold, resolve
from hub.ledger.refusals import AmountNotPositiveError
from hub.ledger.rules import AccountLimitError, TransferConflictError
from hub.ledger.service import Group
from hub.ledger.tables import Account, Entry, Transfer
from tests.hub.ledger.books import Books, by, open_books
from tests.hub.ledger.test_combining import count_commits, count_waiting, place_hold, run_together


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slow machine decide who is taken along."""
    monkeypatch.setattr(combining, "LONGEST_S", 60)


@pytest.fixture
def books(both: Sessions, now: datetime) -> Books:
    with both.write() as session:
        return open_books(session, now, cash_fen=100)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups each call posted for several that waited, or was to post."""
    seen: list[int] = []
    post = joint.post_at_once

    def note(connection: Connection, groups: Sequence[Group]) -> Any:
        seen.append(len(groups))
        return post(connection, groups)

    monkeypatch.setattr(joint, "post_at_once", note)
    return seen


def posting(books: Books, now: datetime, key: str, amount_fen: int, **more: Any) -> Posting:
    wanted = hold(key, books.cash, books.clearing, amount_fen=amount_fen, code="hold", **more)
    return Posting(Group(f"g_{key}", [wanted], by(now)))


def list_answers(futures: Sequence[Any]) -> list[Any]:
    """Return whose transfer each posted, or the class of its refusal."""
    errors = [future.exception() for future in futures]
    return [
        future.result()[0].id if error is None else type(error) for future, error in zip(futures, errors, strict=True)
    ]


def test_postings_that_wait_go_in_one_call_and_one_commit(
    both: Sessions, books: Books, now: datetime, calls: list[int]
) -> None:
    commits = count_commits(both)
    works = [posting(books, now, key, 10, lease_s=60) for key in ("a", "b", "c")]
    assert list_answers(run_together(both, works)[1:]) == ["a", "b", "c"]
    assert (calls, len(commits)) == ([3], 1)
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 30
        versions = session.scalars(select(Entry.account_version).where(Entry.account_id == books.cash.id))
        assert sorted(versions) == [1, 2, 3, 4]
        assert check_books(session) == []


def test_a_leader_goes_with_who_came_while_its_transaction_began(
    both: Sessions, books: Books, now: datetime, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [posting(books, now, key, 10) for key in ("a", "b", "c", "d")]
    begun: list[int] = []

    def begin(connection: Connection) -> None:
        begun.append(count_waiting(both))

    monkeypatch.setattr(database, "begin", begin)
    # The first in line leads the others once the one that held them up is refused.
    futures = run_together(both, works, place_hold(books, now, "greedy", 101))
    assert isinstance(futures[0].exception(), AccountLimitError)
    assert list_answers(futures[1:]) == ["a", "b", "c", "d"]
    assert (begun, calls) == ([3], [4])


def test_one_that_is_refused_loses_nobody_else_the_posting(
    both: Sessions, books: Books, now: datetime, calls: list[int]
) -> None:
    commits = count_commits(both)
    wishes = [("a", 40), ("b", 70), ("c", 60), ("d", 1)]
    futures = run_together(both, [posting(books, now, *wish) for wish in wishes])
    assert list_answers(futures[1:]) == ["a", AccountLimitError, "c", AccountLimitError]
    assert (calls, len(commits)) == ([4], 1)
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 100
        assert check_books(session) == []


def test_a_leader_that_is_refused_keeps_those_that_go_with_it(both: Sessions, books: Books, now: datetime) -> None:
    commits = count_commits(both)
    wishes = [("greedy", 101), ("a", 40), ("b", 60)]
    futures = run_together(both, [posting(books, now, *wish) for wish in wishes], place_hold(books, now, "first", 101))
    assert list_answers(futures[1:]) == [AccountLimitError, "a", "b"]
    assert len(commits) == 1  # what held them up was refused, and committed nothing
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 100
        assert check_books(session) == []


def test_a_repeat_is_answered_and_other_content_refused(both: Sessions, books: Books, now: datetime) -> None:
    wishes = [("a", 40), ("a", 40), ("a", 41), ("b", 10)]
    futures = run_together(both, [posting(books, now, *wish) for wish in wishes])
    assert list_answers(futures[1:]) == ["a", "a", TransferConflictError, "b"]
    again = run_together(both, [posting(books, now, *wish) for wish in (("b", 10), ("c", 1))])
    assert list_answers(again[1:]) == ["b", "c"]
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 51
        assert check_books(session) == []


def test_an_end_of_a_hold_and_an_unknown_account_have_their_own_way(
    both: Sessions, books: Books, now: datetime
) -> None:
    with both.write() as session:
        place_hold(books, now, "held", 30)(session)
    held = Transfer(id="held", debit_id=books.cash.id, credit_id=books.clearing.id, amount_fen=30)
    end = Posting(Group("g_end", [resolve("end", held, amount_fen=20, code="c")], by(now)))
    nowhere = books._replace(cash=Account(id="acc_none"))
    works = [posting(books, now, "a", 5), end, posting(nowhere, now, "b", 1), posting(books, now, "c", 6)]
    assert list_answers(run_together(both, works)[1:]) == ["a", "end", NotFoundError, "c"]
    with both.read() as session:
        account = session.get_one(Account, books.cash.id)
        assert (account.debits_pending, account.debits_posted) == (11, 20)
        assert check_books(session) == []


def test_postings_and_other_work_keep_their_order(
    both: Sessions, books: Books, now: datetime, calls: list[int]
) -> None:
    def read_held(session: Session) -> list[Transfer]:
        held = session.get_one(Account, books.cash.id).debits_pending
        return [Transfer(id=f"held {held}")]

    works = [posting(books, now, "a", 1), posting(books, now, "b", 2), read_held, posting(books, now, "c", 4)]
    futures = run_together(both, [*works, posting(books, now, "d", 8), read_held])
    assert list_answers(futures[1:]) == ["a", "b", "held 3", "c", "d", "held 15"]
    assert calls == [2, 2]


def test_a_shared_transaction_takes_sixteen_postings(
    both: Sessions, books: Books, now: datetime, calls: list[int]
) -> None:
    keys = [f"h{number}" for number in range(combining.MOST + 1)]
    futures = run_together(both, [posting(books, now, key, 1) for key in keys])
    assert list_answers(futures[1:]) == keys
    assert calls == [combining.MOST - 1, 2]


class Breaking(Joint):
    """Notes a line where it is alone, and ends the transaction where it is not."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    def __call__(self, session: Session) -> str:
        self.note("alone")
        return "alone"

    def join(self, connection: Connection, others: Sequence[Any]) -> Sequence[Any] | None:
        self.note(f"with {len(others)}")
        connection.execute(text("SELECT no_such_thing"))
        return None


def test_a_call_that_breaks_the_transaction_is_done_again_one_by_one(
    both: Sessions, books: Books, now: datetime
) -> None:
    notes: list[str] = []
    works = [place_hold(books, now, "before", 5), Breaking(notes.append), Breaking(notes.append)]
    futures = run_together(both, works)
    assert [future.result() for future in futures[1:]] == ["before", "alone", "alone"]
    assert notes == ["with 1", "alone", "alone"]
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 5


def test_one_alone_answers_and_refuses_as_any_posting(both: Sessions, books: Books, now: datetime) -> None:
    assert both.combine("line", posting(books, now, "a", 60))[0].id == "a"
    with pytest.raises(AccountLimitError):
        both.combine("line", posting(books, now, "b", 41))
    with pytest.raises(AmountNotPositiveError):
        posting(books, now, "c", 0)  # refused where it is made, before it could hold up others
    assert both.combine("line", posting(books, now, "a", 60))[0].id == "a"
    with pytest.raises(DBAPIError):
        both.combine("line", lambda session: session.execute(text("SELECT no_such_thing")))
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 60
