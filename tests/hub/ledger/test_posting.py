"""The ledger on both databases: holds, limits, idempotency, and history that nobody can change."""

from datetime import datetime

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DatabaseError

from hub.database import Sessions
from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.audit import balance_at, check_books, trial_balance
from hub.ledger.movements import hold, move, resolve
from hub.ledger.rules import AccountLimitError, HoldResolvedError, TransferConflictError
from hub.ledger.service import find_transfer, post_group
from hub.ledger.tables import Account, Entry, Transfer
from tests.hub.ledger.books import by, open_books


def test_hold_post_releases_the_rest(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))[0]
        assert (books.cash.available_fen, books.cash.debits_pending) == (40, 60)
        post_group(session, "g2", [resolve("p", held, amount_fen=25, code="c")], by(now))
        assert (books.cash.available_fen, books.cash.debits_pending) == (75, 0)
        assert (books.clearing.credits_posted, books.clearing.credits_pending) == (25, 0)
    with both.read() as session:
        assert check_books(session) == []


def test_hold_void_releases_everything(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))[0]
        post_group(session, "g2", [resolve("v", held, amount_fen=0, code="c")], by(now))
        assert (books.cash.available_fen, books.clearing.balance_fen) == (100, 0)
        assert check_books(session) == []


def test_held_money_counts_against_the_limit(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))
        with pytest.raises(AccountLimitError, match="20 fen are missing"):
            post_group(session, "g2", [move("m", books.cash, books.clearing, amount_fen=60, code="c")], by(now))


def test_hold_ends_once(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))[0]
        post_group(session, "g2", [resolve("p", held, amount_fen=60, code="c")], by(now))
        with pytest.raises(HoldResolvedError):
            post_group(session, "g3", [resolve("v", held, amount_fen=0, code="c")], by(now))


def test_post_above_the_hold_is_refused(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))[0]
        with pytest.raises(InvalidValueError, match="61 fen"):
            post_group(session, "g2", [resolve("p", held, amount_fen=61, code="c")], by(now))
        missing = Transfer(id="no", debit_id=held.debit_id, credit_id=held.credit_id)
        with pytest.raises(NotFoundError, match="hold"):
            post_group(session, "g3", [resolve("q", missing, amount_fen=1, code="c")], by(now))


def test_same_group_again_changes_nothing(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        wanted = [move("m", books.cash, books.clearing, amount_fen=30, code="c")]
        first = post_group(session, "g", wanted, by(now))
        again = post_group(session, "g", wanted, by(now))
        assert [row.id for row in again] == [row.id for row in first]
        assert books.cash.available_fen == 70
        assert session.scalar(select(func.count()).select_from(Transfer)) == 2


@pytest.mark.parametrize("change", [{"amount_fen": 31}, {"code": "other"}])
def test_same_id_with_other_content_is_a_conflict(both: Sessions, now: datetime, change: dict[str, int | str]) -> None:
    with both.write() as session:
        books = open_books(session, now)
        content = {"amount_fen": 30, "code": "c"}
        post_group(session, "g", [move("m", books.cash, books.clearing, **content)], by(now))  # type: ignore[arg-type]
        with pytest.raises(TransferConflictError):
            post_group(
                session,
                "g",
                [move("m", books.cash, books.clearing, **(content | change))],  # type: ignore[arg-type]
                by(now),
            )


def test_refused_group_leaves_nothing_even_if_the_caller_commits(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        cash_id = books.cash.id
        movements = [
            move("a", books.cash, books.clearing, amount_fen=90, code="c"),
            move("b", books.cash, books.clearing, amount_fen=90, code="c"),
        ]
        with pytest.raises(AccountLimitError):
            post_group(session, "g", movements, by(now))
    with both.read() as session:
        assert find_transfer(session, "a") is None
        assert check_books(session) == []
        cash = session.get_one(Account, cash_id)
        assert (cash.available_fen, cash.version) == (100, 1)


def test_versions_have_no_gap_and_history_answers(both: Sessions, now: datetime) -> None:
    later = now.replace(hour=now.hour + 1)
    with both.write() as session:
        books = open_books(session, now)
        post_group(session, "g", [move("m", books.cash, books.clearing, amount_fen=30, code="c")], by(later))
        query = select(Entry.account_version).where(Entry.account_id == books.cash.id).order_by(Entry.account_version)
        assert list(session.scalars(query)) == [1, 2]
        assert balance_at(session, books.cash.id, later) == 100
        assert balance_at(session, books.cash.id, now) == 0
        assert trial_balance(session).posted_sum_fen == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_transfers SET amount_fen = 1",
        "DELETE FROM ledger_transfers",
        "UPDATE ledger_entries SET amount_fen = 1",
        "DELETE FROM ledger_entries",
        "DELETE FROM ledger_accounts",
        "UPDATE ledger_accounts SET limited = 0",
    ],
)
def test_history_cannot_be_changed(both: Sessions, now: datetime, statement: str) -> None:
    with both.write() as session:
        open_books(session, now)
    with pytest.raises(DatabaseError, match="append-only"), both.write() as session:
        session.execute(text(statement))


def test_history_cannot_be_truncated(both: Sessions, now: datetime) -> None:
    if both.engine.dialect.name == "sqlite":
        return  # SQLite has no TRUNCATE; DELETE is refused above.
    with both.write() as session:
        open_books(session, now)
    with pytest.raises(DatabaseError, match="append-only"), both.write() as session:
        session.execute(text("TRUNCATE ledger_entries"))


def test_the_database_refuses_an_overdraft_by_itself(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
    with pytest.raises(DatabaseError, match=r"within_limit|sides_hold"), both.write() as session:
        session.execute(text("UPDATE ledger_accounts SET debits_posted = 101 WHERE id = :id"), {"id": books.cash.id})


def test_check_books_notices_a_wrong_balance(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        session.execute(text("UPDATE ledger_accounts SET credits_posted = 90 WHERE id = :id"), {"id": books.cash.id})
        session.expire_all()
        problems = check_books(session)
    assert any("not 0" in problem for problem in problems)
    assert any(books.cash.id in problem for problem in problems)
