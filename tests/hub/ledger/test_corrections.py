"""Corrections are further postings: whole reversals, once, and differences."""

from datetime import datetime

import pytest
from msgspec.structs import asdict
from sqlalchemy.orm import Session

from hub.database import Sessions
from hub.ledger.audit import check_books
from hub.ledger.movements import difference, hold, move, resolve, reverse
from hub.ledger.refusals import ReversalError
from hub.ledger.rules import Movement
from hub.ledger.service import Group, find_transfer, post_group, post_groups
from hub.ledger.tables import Transfer
from tests.hub.ledger.books import Books, by, open_books


def spend(session: Session, now: datetime) -> tuple[Books, Transfer]:
    books = open_books(session, now)
    return books, post_group(session, "g", [move("m", books.cash, books.clearing, amount_fen=30, code="c")], by(now))[0]


def test_a_reversal_moves_all_back_and_is_linked(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, posted = spend(session, now)
        post_group(session, "g2", [reverse("r", posted, code="undo")], by(now))
        assert (books.cash.available_fen, books.clearing.balance_fen, books.cash.version) == (100, 0, 3)
    with both.read() as session:
        row = find_transfer(session, "r")
        assert row is not None
        assert row.reverses_id == "m"
        assert check_books(session) == []


def test_a_transfer_is_reversed_once(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, posted = spend(session, now)
        post_group(session, "top", [move("t", books.bank, books.clearing, amount_fen=90, code="c")], by(now))
        post_group(session, "g2", [reverse("r", posted, code="undo")], by(now))
        with pytest.raises(ReversalError, match="once"):
            post_group(session, "g3", [reverse("s", posted, code="undo")], by(now))


def test_a_reversal_takes_no_more_than_the_account_holds(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, posted = spend(session, now)
        post_group(session, "out", [move("o", books.clearing, books.bank, amount_fen=1, code="c")], by(now))
        with pytest.raises(Exception, match="1 fen are missing"):
            post_group(session, "g2", [reverse("r", posted, code="undo")], by(now))


@pytest.mark.parametrize("change", [{"amount_fen": 29}, {"swap": True}, {"reverses_id": "h"}])
def test_only_the_whole_of_what_moved_is_reversed(both: Sessions, now: datetime, change: dict[str, object]) -> None:
    with both.write() as session:
        books, posted = spend(session, now)
        post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=30, code="c")], by(now))
        values = {**asdict(reverse("r", posted, code="undo")), **change}
        if values.pop("swap", False):
            values["debit_id"], values["credit_id"] = values["credit_id"], values["debit_id"]
        with pytest.raises(ReversalError):
            post_group(session, "g2", [Movement(**values)], by(now))


def test_a_posted_hold_is_reversed_by_what_was_posted(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=60, code="c")], by(now))[0]
        end = post_group(session, "g2", [resolve("p", held, amount_fen=25, code="c")], by(now))[0]
        post_group(session, "g3", [reverse("r", end, code="undo")], by(now))
        assert (books.cash.available_fen, books.clearing.balance_fen) == (100, 0)


@pytest.mark.parametrize(("was", "now_fen"), [(30, 30), (30, 45), (30, 12), (30, 0), (0, 7)])
def test_a_difference_makes_it_what_it_should_be(both: Sessions, now: datetime, was: int, now_fen: int) -> None:
    with both.write() as session:
        books = open_books(session, now)
        first = difference("a", books.cash, books.clearing, was_fen=0, now_fen=was, code="c")
        second = difference("b", books.cash, books.clearing, was_fen=was, now_fen=now_fen, code="c")
        post_groups(session, [Group("g1", first, by(now)), Group("g2", second, by(now))])
        assert (books.cash.available_fen, books.clearing.balance_fen) == (100 - now_fen, now_fen)
