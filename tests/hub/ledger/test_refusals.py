"""What the ledger refuses, by the rule's name, with the books untouched."""

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import asdict, replace
from sqlalchemy import func, select

from hub.database import Sessions
from hub.errors import GuanmoError
from hub.ledger.audit import check_books
from hub.ledger.closing import close_month
from hub.ledger.movements import hold, move, resolve
from hub.ledger.rules import Movement, PeriodClosedError
from hub.ledger.service import Group, Posted, open_account, post_group, post_groups
from hub.ledger.tables import Account, AccountKind, Entry, Transfer, TransferKind
from tests.hub.ledger.books import Books, by, open_books

SIDES = (
    Account.debits_pending,
    Account.debits_posted,
    Account.credits_pending,
    Account.credits_posted,
    Account.version,
)


def count_rows(session: Any) -> tuple[int, int, int]:
    moved = session.scalar(select(func.sum(Account.version)))
    transfers, entries = (session.scalar(select(func.count()).select_from(table)) for table in (Transfer, Entry))
    return int(transfers), int(entries), int(moved)


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        (1.0, "amount_not_whole"),
        (0.29 * 100, "amount_not_whole"),
        (True, "amount_not_whole"),
        ("5", "amount_not_whole"),
        (None, "amount_not_whole"),
        (0, "amount_not_positive"),
        (-1, "amount_not_positive"),
        (10**15 + 1, "amount_too_large"),
        (2**63, "amount_too_large"),
    ],
)
def test_amounts_are_refused_by_name(both: Sessions, now: datetime, amount: Any, code: str) -> None:
    with both.write() as session:
        books = open_books(session, now)
        before = count_rows(session)
        sound = move("a", books.cash, books.clearing, amount_fen=1, code="c")
        with pytest.raises(GuanmoError) as caught:
            post_group(
                session, "g", [sound, move("b", books.cash, books.clearing, amount_fen=amount, code="c")], by(now)
            )
        assert caught.value.code == code
        assert count_rows(session) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pending_id": "dep"},
        {"kind": TransferKind.POST},
        {"kind": TransferKind.PENDING, "reverses_id": "dep"},
        {"lease_s": 60},
        {"kind": TransferKind.PENDING, "lease_s": 0},
        {"same": True},
    ],
)
def test_references_must_fit_the_kind(both: Sessions, now: datetime, change: dict[str, Any]) -> None:
    with both.write() as session:
        books = open_books(session, now)
        values = {**asdict(move("a", books.cash, books.clearing, amount_fen=1, code="c")), **change}
        if values.pop("same", False):
            values["credit_id"] = values["debit_id"]
        with pytest.raises(GuanmoError) as caught:
            post_group(session, "g", [Movement(**values)], by(now))
        assert caught.value.code == "invalid_value"


def test_an_end_between_other_accounts_is_refused(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books = open_books(session, now)
        held = post_group(session, "g1", [hold("h", books.cash, books.clearing, amount_fen=9, code="c")], by(now))[0]
        stray = replace(resolve("p", held, amount_fen=9, code="c"), credit_id=books.bank.id)
        with pytest.raises(GuanmoError, match="same two accounts"):
            post_group(session, "g2", [stray], by(now))


def test_a_closed_month_takes_nothing_new(both: Sessions, now: datetime) -> None:
    october = now.replace(month=10)
    backdated = Posted("test", "t", "u", now, event_at=october)
    with both.write() as session:
        books = open_books(session, now)
        early = [move("early", books.cash, books.clearing, amount_fen=1, code="c")]
        post_group(session, "early", early, backdated)
        close_month(session, "2026-10", closed_by="usr_1", now=now)
        before = count_rows(session)
        late = move("late", books.cash, books.clearing, amount_fen=1, code="c")
        with pytest.raises(PeriodClosedError, match="2026-10"):
            post_groups(session, [Group("x", [], by(now)), Group("late", [late], backdated)])
        with pytest.raises(PeriodClosedError, match="2026-10"):
            post_group(session, "late", [late], backdated)
        assert count_rows(session) == before
        assert post_group(session, "early", early, backdated)[0].id == "early"
        assert post_group(session, "late", [late], by(now))[0].event_at == now


def test_a_running_month_cannot_be_closed(both: Sessions, now: datetime) -> None:
    with both.write() as session, pytest.raises(GuanmoError) as caught:
        close_month(session, "2026-11", closed_by="usr_1", now=now)
    assert caught.value.code == "month_running"


def test_closing_twice_keeps_the_first(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        first = close_month(session, "2026-10", closed_by="usr_1", now=now)
        assert close_month(session, "2026-10", closed_by="usr_2", now=now).closed_by == first.closed_by == "usr_1"


def test_nobody_pays_more_than_is_owed(both: Sessions, now: datetime) -> None:
    from hub.ledger.service import open_account

    with both.write() as session:
        books = open_books(session, now)
        owed = open_account(session, organisation_id="org_1", kind=AccountKind.FIRM_RECEIVABLE, now=now)
        post_group(session, "g1", [move("a", owed, books.bank, amount_fen=30, code="clawback")], by(now))
        with pytest.raises(GuanmoError, match="31 fen are needed"):
            post_group(session, "g2", [move("b", books.cash, owed, amount_fen=31, code="paid")], by(now))
        post_group(session, "g3", [hold("c", books.cash, owed, amount_fen=30, code="paid")], by(now))
        with pytest.raises(GuanmoError, match="holds 0 fen"):
            post_group(session, "g4", [move("d", books.cash, owed, amount_fen=1, code="paid")], by(now))


def test_what_was_moved_before_a_refusal_is_moved_back(both: Sessions, now: datetime) -> None:
    """A single posting moves its accounts in the order of their ids and finds what is in the way after that."""
    with both.write() as session:
        books = open_books(session, now)
        owed = open_account(session, organisation_id="org_1", kind=AccountKind.FIRM_RECEIVABLE, now=now)
        assert books.bank.id < books.cash.id < books.clearing.id < owed.id
        before = session.execute(select(*SIDES).order_by(Account.id)).all()
        refused = {
            "the debit comes second": move("a", books.clearing, books.cash, amount_fen=1, code="c"),
            "the credit comes second": move("b", books.bank, owed, amount_fen=1, code="c"),
            "the id is taken": move("dep", books.bank, books.cash, amount_fen=1, code="c"),
        }
        for name, movement in refused.items():
            with pytest.raises(GuanmoError):
                post_group(session, name, [movement], by(now))
        assert session.execute(select(*SIDES).order_by(Account.id)).all() == before
        assert post_group(session, "dep", [deposit_of(books)], by(now))[0].seq == 1
        assert session.execute(select(*SIDES).order_by(Account.id)).all() == before
    with both.read() as session:
        assert check_books(session) == []


def test_posting_goes_on_after_a_rollback(both: Sessions, now: datetime) -> None:
    """The driver drops what it has prepared after a rollback; what was prepared beside it must know."""
    with both.write() as session:
        books = open_books(session, now)
    for turn in range(8):
        with both.write() as session:
            session.scalar(select(Account.version).where(Account.id == books.cash.id))
            attempt = session.begin_nested()
            post_group(
                session, f"g{turn}", [move(f"m{turn}", books.cash, books.clearing, amount_fen=1, code="c")], by(now)
            )
            attempt.rollback()
            post_group(
                session, f"g{turn}", [move(f"m{turn}", books.cash, books.clearing, amount_fen=2, code="c")], by(now)
            )
    with both.read() as session:
        assert session.get_one(Account, books.cash.id).available_fen == 100 - 8 * 2
        assert check_books(session) == []


def deposit_of(books: Books) -> Movement:
    return move("dep", books.bank, books.cash, amount_fen=100, code="deposit")
