"""The end of a month: late money still bills to its own month, and vouchers pay back what they owe on a line."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from hub.events.tables import Event
from hub.ledger.audit import check_books
from hub.orders import service
from hub.orders.tables import BillLine, Charge
from hub.reports.comma_separated import write_csv
from hub.reports.service import statement
from hub.reports.sheet import lay_out
from hub.vouchers.service import list_grants
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market, copied

FEN = 1_000_000
PER_TOKEN = 800
FUNDS = 100_000
DECEMBER = datetime(2026, 12, 1, 4, tzinfo=UTC)


def close_month(market: Market) -> int:
    with market.sessions.write() as session:
        return service.close_months(session, market.now)


def draw(market: Market, key: str) -> str:
    """Open a hold of 500 fen of its own and return its one slice."""
    piece = market.draw(key, want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    return piece.allowance_id


def use(market: Market, allowance_id: str, tokens: int) -> None:
    market.send(market.record(allowance_id, f"r-{allowance_id}", (0, 0, tokens)))
    market.close(allowance_id, spent_ufen=tokens * PER_TOKEN, through_seq=1)


def subsidised_line(market: Market) -> BillLine:
    with market.sessions.read() as session:
        return session.scalars(select(BillLine).where(BillLine.rule_version_id.is_not(None))).one()


@pytest.fixture
def short(market: Market) -> Market:
    """The first of two holds takes the grant's money and leaves it unused, so that the second pays too little of it."""
    market.award("model", 260)
    market.fund("factory", FUNDS, "bank-1")
    first, second = draw(market, "a"), draw(market, "b")
    use(market, first, 12_500)  # 10 fen of 500, 250 of the voucher held
    use(market, second, 500_000)  # 400 fen, 10 of the voucher held
    assert market.settle() == 2
    return market


def test_a_month_that_goes_on_is_not_topped_up(short: Market) -> None:
    line = subsidised_line(short)
    assert (line.posted_fen, line.subsidised_fen) == (410, 15)
    assert close_month(short) == 0


def test_the_voucher_pays_back_what_it_owes_when_the_month_is_over(short: Market) -> None:
    short.now = DECEMBER
    assert close_month(short) == 1
    assert close_month(short) == 0
    line = subsidised_line(short)
    assert (line.month, line.posted_fen, line.subsidised_fen) == ("2026-11", 410, 205)
    with short.sessions.read() as session:
        owner = short.owner("factory")
        assert service.wallet(session, owner).balance_fen == FUNDS - 205
        assert [(row.settled_fen, row.left_fen) for row in list_grants(session, owner)] == [(205, 55)]
        report = statement(session, owner, "2026-11")
        assert (report.list_fen, report.voucher_fen, report.self_paid_fen) == (410, 205, 205)
        event = session.scalars(select(Event).where(Event.topic == "bill_line.topped_up")).one()
        assert (event.subject, event.payload["paid_fen"]) == (line.id, 190)
        assert check_books(session) == []


def test_a_later_award_tops_up_what_the_first_could_not(market: Market) -> None:
    market.award("model", 30)
    market.fund("factory", FUNDS, "bank-1")
    use(market, draw(market, "a"), 125_000)  # 100 fen
    market.settle()
    market.now = DECEMBER
    assert close_month(market) == 0
    for award, subsidised in ((15, 45), (50, 50)):
        market.award("model", award, contract_no=f"HT-{award}")
        assert close_month(market) == 1
        assert subsidised_line(market).subsidised_fen == subsidised
    assert close_month(market) == 0


def test_a_slice_that_comes_back_late_bills_to_its_own_month_first(market: Market) -> None:
    market.award("model", 250)
    market.fund("factory", FUNDS, "bank-1")
    market.now = DECEMBER - timedelta(hours=12, seconds=1)  # the last second of November in Shanghai
    first, second, late = draw(market, "a"), draw(market, "b"), draw(market, "c")
    use(market, first, 12_500)
    use(market, second, 500_000)
    market.settle()
    market.now = DECEMBER
    assert close_month(market) == 0  # a slice of November is still out
    use(market, late, 125_000)
    assert market.settle() == 1
    with market.sessions.read() as session:
        assert {charge.month for charge in session.scalars(select(Charge))} == {"2026-11"}
        # The later holds found all of the grant held: their calls stand on the subsidised line too, and it catches up.
        assert [line.month for line in session.scalars(select(BillLine))] == ["2026-11"]
        assert statement(session, market.owner("factory"), "2026-12").lines == []
    line = subsidised_line(market)
    assert (line.posted_fen, line.subsidised_fen) == (510, 5)
    assert close_month(market) == 1
    assert subsidised_line(market).subsidised_fen == 250  # half of 510 is 255, the grant had 250


def test_a_grant_that_is_spent_leaves_later_calls_without_a_rule(market: Market) -> None:
    market.award("model", 5)
    market.fund("factory", FUNDS, "bank-1")
    for number in range(2):
        use(market, draw(market, str(number)), 12_500)
        market.settle()
        market.now += timedelta(minutes=2)
    with market.sessions.read() as session:
        found = session.scalars(select(BillLine).order_by(BillLine.rule_version_id.is_(None))).all()
    assert [(line.posted_fen, line.subsidised_fen, line.programme) for line in found] == [
        (10, 5, "model"),
        (10, 0, None),
    ]


def test_statements_say_what_moved_in_another_month(market: Market) -> None:
    market.award("model", 250)
    market.fund("factory", FUNDS, "bank-1")
    market.now = DECEMBER - timedelta(hours=12, seconds=1)
    early, late = draw(market, "a"), draw(market, "b")
    use(market, early, 12_501)
    market.settle()
    market.now = DECEMBER
    use(market, late, 125_000)
    market.settle()
    close_month(market)
    use(market, draw(market, "c"), 25_000)
    market.settle()
    with market.sessions.read() as session:
        reports = [statement(session, market.owner("factory"), month) for month in ("2026-11", "2026-12")]
        assert check_books(session) == []
    # November: 10 fen with 5 of the voucher; 100 fen arrived in December, where the voucher then paid 50 of them.
    assert [(report.carried.later_fen, report.carried.earlier_fen) for report in reports] == [(50, 0), (0, 50)]
    assert [report.self_paid_fen for report in reports] == [55, 10]
    for report in reports:
        cash = next(balance for balance in report.balances if balance.kind == "firm_cash")
        moved = cash.before_fen - cash.after_fen + (FUNDS if report.month == "2026-11" else 0)
        assert moved == report.self_paid_fen - report.carried.later_fen + report.carried.earlier_fen
    assert "Own money of these lines that moved later,0.50" in write_csv(lay_out(reports[0], "en")).decode()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    award=st.integers(1, 600),
    used=st.lists(st.integers(0, 499 * FEN // PER_TOKEN), min_size=1, max_size=4),
    more=st.integers(0, 300),
)
def test_after_the_close_a_voucher_owes_nothing_or_is_spent(
    built_market: Market, award: int, used: list[int], more: int
) -> None:
    with copied(built_market) as market:
        _live_a_month(market, award=award, used=used, more=more)
        _check_close(market)


def _live_a_month(market: Market, *, award: int, used: list[int], more: int) -> None:
    market.award("model", award)
    market.fund("factory", FUNDS, "bank-1")
    slices = [draw(market, str(number)) for number in range(len(used))]
    for allowance_id, tokens in zip(slices, used, strict=True):
        use(market, allowance_id, tokens)
    assert market.settle() == len(used)
    if more:
        market.award("model", more, contract_no="HT-2")
    market.now = DECEMBER
    close_month(market)
    assert close_month(market) == 0


def _check_close(market: Market) -> None:
    with market.sessions.read() as session:
        lines = session.scalars(select(BillLine)).all()
        grants = list_grants(session, market.owner("factory"))
        wallet = service.wallet(session, market.owner("factory"))
        assert check_books(session) == []
    owed = sum(line.posted_fen * line.share_num // line.share_den - line.subsidised_fen for line in lines)
    assert owed >= 0
    assert owed == 0 or sum(grant.left_fen for grant in grants) == 0
    assert sum(line.subsidised_fen for line in lines) == sum(grant.settled_fen for grant in grants)
    assert (wallet.balance_fen, wallet.held_fen) == (
        FUNDS - sum(line.posted_fen - line.subsidised_fen for line in lines),
        0,
    )
