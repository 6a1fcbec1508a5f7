"""Closed months never change: later corrections and top-ups are lines of the open month that name the closed one."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from hub.errors import ForbiddenError, NotFoundError
from hub.ledger.audit import balance_at, check_books
from hub.ledger.periods import month_bounds
from hub.ledger.service import find_account
from hub.ledger.tables import AccountKind
from hub.orders import service
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Order
from hub.reports.closing import PeriodOpenError, close_statement, close_statements
from hub.reports.records import list_records
from hub.reports.service import Statement, build_statement, statement
from hub.reports.stored import StatementDamagedError, digest, present_statement, restore
from hub.reports.tables import ClosedStatement
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

DECEMBER = datetime(2026, 12, 2, 3, 0, tzinfo=UTC)


def close(market: Market, now: datetime = DECEMBER) -> int:
    with market.sessions.write() as session:
        return close_statements(session, now)


def read(market: Market, month: str) -> Statement:
    with market.sessions.read() as session:
        return statement(session, market.owner("factory"), month)


def refund(market: Market) -> None:
    with market.sessions.write() as session:
        order = session.scalars(select(Order)).one()
        wanted = Wanted("the provider's meter was wrong", fault="provider")
        propose_correction(session, market.actors["operator"], order.id, wanted, now=DECEMBER)


def check_cash(market: Market, month: str) -> None:
    """The firm's cash moved by its lines, what was carried, and its deposits: nothing else."""
    start, end = month_bounds(month)
    report = read(market, month)
    with market.sessions.read() as session:
        cash = find_account(session, organisation_id=market.owner("factory"), kind=AccountKind.FIRM_CASH)
        assert cash is not None
        moved = balance_at(session, cash.id, start) - balance_at(session, cash.id, end)
    deposited = 10_000 if month == "2026-11" else 0
    carried = report.carried.earlier_fen - report.carried.later_fen
    assert moved == report.self_paid_fen + carried - deposited


def test_a_month_closes_a_day_after_its_end_and_is_served_as_stored(busy: Market) -> None:
    before = read(busy, "2026-11")
    assert before.closed is None
    assert close(busy, datetime(2026, 12, 1, 15, 59, tzinfo=UTC)) == 0
    assert close(busy) == 1
    assert close(busy) == 0
    after = read(busy, "2026-11")
    assert after.closed is not None
    body = present_statement(after)
    assert {**body, "closed": None} == present_statement(before)
    assert after.closed.sha256 == digest({**body, "closed": None})


def test_a_correction_stands_in_the_open_month_and_names_the_closed_one(busy: Market) -> None:
    close(busy)
    stored = present_statement(read(busy, "2026-11"))
    refund(busy)
    assert present_statement(read(busy, "2026-11")) == stored
    report = read(busy, "2026-12")
    assert [(line.kind, line.version, line.corrects_month) for line in report.lines] == [
        ("correction", 2, "2026-11"),
        ("correction", 2, "2026-11"),
    ]
    assert (report.list_fen, report.voucher_fen, report.self_paid_fen) == (-4201, -2100, -2101)
    for line in report.lines:
        assert sum(part.amount_fen for part in line.parts) == line.list_fen
    check_cash(busy, "2026-11")
    check_cash(busy, "2026-12")
    with busy.sessions.read() as session:
        assert check_books(session) == []
        live = build_statement(session, busy.owner("factory"), "2026-11")
    assert live.lines == restore_lines(busy)


def restore_lines(market: Market) -> list[object]:
    return list(read(market, "2026-11").lines)


def test_a_voucher_that_pays_after_the_close_is_a_line_of_its_month(market: Market) -> None:
    market.award("model", 3, contract_no="A")
    market.fund("factory", 10_000, "bank-1")
    piece = market.draw("draw")
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, "r-1", (50_000, 0, 1000)))
    market.close(piece.allowance_id, through_seq=1)
    market.settle()
    # 10 fen of prompt and 0.8 of completion: half is 5, the grant had 3.
    assert close(market) == 1
    market.award("model", 10, contract_no="B")
    with market.sessions.write() as session:
        assert service.close_months(session, DECEMBER) == 1
    closed, report = read(market, "2026-11"), read(market, "2026-12")
    assert (closed.voucher_fen, closed.self_paid_fen) == (3, 7)
    assert [(line.kind, line.corrects_month, line.self_paid_fen) for line in report.lines] == [
        ("top_up", "2026-11", -2)
    ]
    assert (report.list_fen, report.voucher_fen, report.self_paid_fen) == (0, 2, -2)
    assert report.carried.earlier_fen == 0
    check_cash(market, "2026-11")
    check_cash(market, "2026-12")
    with market.sessions.read() as session:
        records = list_records(session, market.actors["factory"], report.lines[0].line_id)
        assert (records.line_id, records.month) == (report.lines[0].line_id, "2026-12")
        assert [row.record_id for row in records.items] == ["r-1:0"]
        with pytest.raises(NotFoundError):
            list_records(session, market.actors["rival"], report.lines[0].line_id)


def test_a_month_with_money_still_held_does_not_close(busy: Market) -> None:
    piece = busy.draw("late")
    assert isinstance(piece, AllowanceGrant)
    assert close(busy) == 0
    with pytest.raises(PeriodOpenError, match="still open"):
        close_by_hand(busy, DECEMBER)
    busy.close(piece.allowance_id)
    busy.settle()
    assert close(busy) == 1


def close_by_hand(market: Market, now: datetime, who: str = "operator") -> ClosedStatement:
    with market.sessions.write() as session:
        return close_statement(session, market.actors[who], market.owner("factory"), "2026-11", now=now)


def test_closing_by_hand_is_the_operators_and_not_before_its_time(busy: Market) -> None:
    with pytest.raises(PeriodOpenError, match="can be closed from"):
        close_by_hand(busy, busy.now)
    with pytest.raises(ForbiddenError):
        close_by_hand(busy, DECEMBER, "factory")
    first = close_by_hand(busy, DECEMBER)
    assert close_by_hand(busy, DECEMBER).sha256 == first.sha256


def test_what_is_stored_cannot_change_and_a_change_would_show(busy: Market) -> None:
    close(busy)
    for statement_text in ("UPDATE closed_statements SET sha256 = sha256", "DELETE FROM closed_statements"):
        with pytest.raises(DatabaseError, match="append-only"), busy.sessions.write() as session:
            session.execute(text(statement_text))
    with busy.sessions.read() as session:
        row = session.scalars(select(ClosedStatement)).one()
        session.expunge(row)
    row.body = {**row.body, "self_paid_fen": 0}
    with pytest.raises(StatementDamagedError):
        restore(row)
