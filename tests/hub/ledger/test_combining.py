"""Work of several threads in one transaction: one commit for all that waited, and each its own answer."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from datetime import datetime
from functools import partial
from threading import Event, current_thread
from time import sleep
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from hub import combining
from hub.database import Sessions
from hub.ledger.audit import check_books
from hub.ledger.movements import hold
from hub.ledger.rules import AccountLimitError, TransferConflictError
from hub.ledger.service import find_transfer, post_group
from hub.ledger.tables import Account
from tests.hub.ledger.books import Books, by, open_books

Work = Callable[[Session], Any]
THREADS = 20


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slow machine decide who is taken along."""
    monkeypatch.setattr(combining, "LONGEST_S", 60)


def run_together(
    sessions: Sessions,
    works: Iterable[Work],
    lead: Work = lambda _: None,
    *,
    done: Callable[[Any], None] = lambda _: None,
) -> list[Future[Any]]:
    """Do `lead` and, while it lasts, let the works stand in line one after another; return their futures.

    `done` hears each answer in the thread that asked, as soon as it has it.
    """

    def ask(work: Work) -> Any:
        answer = sessions.combine("line", work)
        done(answer)
        return answer

    asks = (partial(ask, work) for work in works)
    return line_up(sessions, asks, lambda first: ask(lambda session: (first(), lead(session))[1]))


def line_up(
    sessions: Sessions, asks: Iterable[Callable[[], Any]], lead: Callable[[Callable[[], None]], Any]
) -> list[Future[Any]]:
    """Ask by `lead`, which calls what it is given within its work, and have the others in line before that returns."""
    begun, go = Event(), Event()

    def hold_up() -> None:
        begun.set()
        go.wait(120)

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(copy_context().run, lead, hold_up)]
        begun.wait(120)
        for number, ask in enumerate(asks, 1):
            futures.append(pool.submit(copy_context().run, ask))
            while count_waiting(sessions) < number:
                sleep(0.001)
        go.set()
    return futures


def count_waiting(sessions: Sessions) -> int:
    return sum(len(line) for line in sessions._lines._waiting.values())


def count_commits(sessions: Sessions) -> list[str]:
    commits: list[str] = []
    event.listen(sessions.engine, "commit", lambda _: commits.append("commit"))
    return commits


def place_hold(books: Books, now: datetime, key: str, amount_fen: int) -> Work:
    def work(session: Session) -> str:
        wanted = [hold(key, books.cash, books.clearing, amount_fen=amount_fen, code="hold")]
        return post_group(session, f"g_{key}", wanted, by(now))[0].id

    return work


def test_holds_that_wait_share_one_commit_and_each_has_its_own_answer(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)
    commits = count_commits(both)
    wishes = [("a", 40), ("a", 40), ("b", 70), ("a", 41), ("c", 60), ("d", 1)]
    works = [place_hold(books, now, key, amount) for key, amount in wishes]
    leader, *others = run_together(both, works, lambda _: "led")
    assert leader.result() == "led"
    assert others[0].result() == others[1].result() == "a"  # the second is answered from what the first has stored
    for refused, kind in ((others[2], AccountLimitError), (others[3], TransferConflictError)):
        assert isinstance(refused.exception(), kind)
    assert others[4].result() == "c"  # takes the last fen
    assert isinstance(others[5].exception(), AccountLimitError)
    assert len(commits) == 1
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 100
        assert check_books(session) == []


def test_after_one_that_fails_the_next_leads_the_others(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)
    commits = count_commits(both)
    works = [place_hold(books, now, key, 10) for key in ("a", "b", "c")]
    leader, *others = run_together(both, works, place_hold(books, now, "greedy", 101))
    assert isinstance(leader.exception(), AccountLimitError)
    assert [future.result() for future in others] == ["a", "b", "c"]
    assert len(commits) == 1
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 30


def test_a_shared_transaction_takes_sixteen(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)
    commits = count_commits(both)
    futures = run_together(both, [place_hold(books, now, f"h{number}", 1) for number in range(combining.MOST)])
    assert [future.result() for future in futures[1:]] == [f"h{number}" for number in range(combining.MOST)]
    assert len(commits) == 2


def test_whose_time_is_over_takes_nobody_along(both: Sessions, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "LONGEST_S", 0)
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)
    commits = count_commits(both)
    futures = run_together(both, [place_hold(books, now, key, 1) for key in ("a", "b")])
    assert [future.exception() for future in futures] == [None] * 3
    assert len(commits) == 3


def test_what_a_refused_one_wrote_before_is_undone_alone(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)

    def write_then_refuse(session: Session) -> None:
        place_hold(books, now, "undone", 10)(session)
        session.get_one(Account, books.cash.id)  # a mapped row, so that the session has begun its own transaction
        place_hold(books, now, "too-much", 91)(session)

    futures = run_together(both, [place_hold(books, now, "kept", 5), write_then_refuse])
    assert futures[1].result() == "kept"
    assert isinstance(futures[2].exception(), AccountLimitError)
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 5
        assert find_transfer(session, "undone") is None


@pytest.mark.parametrize("statement", ["INSERT INTO ledger_accounts (id) VALUES ('x')", "SELECT no_such_thing"])
def test_one_that_breaks_the_transaction_fails_alone(both: Sessions, now: datetime, statement: str) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)

    def break_it(session: Session) -> None:
        session.execute(text(statement))

    works = [place_hold(books, now, "before", 5), break_it, place_hold(books, now, "after", 6)]
    futures = run_together(both, works)
    assert [futures[1].result(), futures[3].result()] == ["before", "after"]
    assert isinstance(futures[2].exception(), DBAPIError)
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 11
        assert check_books(session) == []


def test_rows_that_refuse_to_be_written_fail_alone(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)

    def add_twin(session: Session) -> None:
        twin = {name: getattr(books.cash, name) for name in Account.__table__.columns.keys()}  # noqa: SIM118
        session.add(Account(**twin))

    futures = run_together(both, [place_hold(books, now, "before", 5), add_twin, place_hold(books, now, "after", 6)])
    assert [futures[1].result(), futures[3].result()] == ["before", "after"]
    assert isinstance(futures[2].exception(), DBAPIError)
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 11


def test_a_commit_that_fails_is_told_to_all_and_may_be_sent_again(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now, cash_fen=100)
    works = [place_hold(books, now, key, 10) for key in ("a", "b", "c")]
    error = OperationalError("COMMIT", (), Exception("the server went away"))

    def fail(_: Any) -> None:
        raise error

    event.listen(both.engine, "commit", fail)
    futures = run_together(both, works)
    event.remove(both.engine, "commit", fail)
    assert [future.exception() for future in futures] == [error] * 4
    assert [both.combine("line", work) for work in works * 2] == ["a", "b", "c"] * 2
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).debits_pending == 30
        assert check_books(session) == []


def test_alone_it_is_a_write_in_the_callers_own_thread(both: Sessions) -> None:
    commits = count_commits(both)
    seen = both.combine("line", lambda session: (current_thread().name, session.execute(text("SELECT 1")).scalar()))
    assert seen == (current_thread().name, 1)
    with pytest.raises(ZeroDivisionError):
        both.combine("line", lambda _: 1 // 0)
    assert len(commits) == 1
    assert count_waiting(both) == 0
    assert not both._lines._waiting  # no line is left behind


def test_work_runs_in_its_own_context_whoever_runs_it(both: Sessions) -> None:
    language: ContextVar[str] = ContextVar("language", default="none")

    def speak() -> Iterator[Work]:
        for word in ("zh", "en"):
            language.set(word)  # each work is handed in with the context of its moment
            yield lambda _: language.get()

    futures = copy_context().run(run_together, both, speak(), lambda _: language.get())
    assert [future.result() for future in futures] == ["none", "zh", "en"]


def test_lines_of_other_names_do_not_wait(both: Sessions) -> None:
    """On SQLite, with its one writer, all lines are one; on PostgreSQL each is its own."""
    if both.engine.dialect.name == "sqlite":
        with ThreadPoolExecutor(1) as pool:
            waiting = both.combine("a", lambda _: pool.submit(both.combine, "b", lambda _: "b"))
            assert waiting.result(30) == "b"
        return
    with ThreadPoolExecutor(1) as pool:
        assert both.combine("a", lambda _: pool.submit(both.combine, "b", lambda _: "b").result(30)) == "b"
