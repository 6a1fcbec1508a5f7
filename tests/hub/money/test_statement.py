"""The statement, recomputed from the raw meter up: device time, trained tokens and usage records to every line."""

from fractions import Fraction

import pytest
from sqlalchemy import select

from hub.errors import InvalidValueError
from hub.ledger.audit import check_books
from hub.metering.tables import Usage
from hub.orders import service
from hub.prices.service import price_lines
from hub.reports.service import Statement, statement
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

MONTH = "2026-11"
DEVICE_MS, TRAINED_TOKENS = 1_234_567, 765_432
CALLS = [(731, 12, 143), (90_211, 80_000, 2_004), (13, 0, 1), (55_555, 0, 4_444), (7, 7, 0), (31_313, 1, 9_999)]


@pytest.fixture
def busy(market: Market) -> Market:
    """A firm that fine-tuned once and called its model through three allowances; one request's base is unfiled."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    quote = market.quote()
    with market.sessions.write() as session:
        order = service.accept_quote(session, market.actors["factory"], quote.id, idempotency_key="k", now=market.now)
        service.settle_order(
            session, order.id, metered={"device_ms": DEVICE_MS, "trained_tokens": TRAINED_TOKENS}, now=market.now
        )
    for turn in range(3):
        piece = market.draw(f"draw-{turn}")
        assert isinstance(piece, AllowanceGrant)
        records = [
            market.record(piece.allowance_id, f"r-{turn}-{index}", counts, filed=index != 3)
            for index, counts in enumerate(CALLS)
        ]
        seq = 1 + turn * len(CALLS)
        market.send(*records, first_seq=seq)
        market.close(piece.allowance_id, through_seq=seq + len(CALLS) - 1)
        market.settle()
    return market


def read(market: Market) -> Statement:
    with market.sessions.read() as session:
        return statement(session, market.owner("factory"), MONTH)


def exact_fen(market: Market, price_version_id: str, quantities: dict[str, int]) -> Fraction:
    with market.sessions.read() as session:
        prices = {
            line.meter: Fraction(line.amount_fen, line.per_units) for line in price_lines(session, price_version_id)
        }
    return sum((prices[meter] * quantity for meter, quantity in quantities.items()), Fraction(0))  # type: ignore[index]


def test_every_line_follows_from_the_raw_meter(busy: Market) -> None:
    report = read(busy)
    metered = {"device_ms": DEVICE_MS, "trained_tokens": TRAINED_TOKENS}
    tuning = {next(iter(line.quantities)): line for line in report.lines if line.kind == "order"}
    assert {meter: line.quantities[meter] for meter, line in tuning.items()} == metered
    for meter, quantity in metered.items():
        line = tuning[meter]
        fee = int(exact_fen(busy, line.price_version_id, {meter: quantity}))
        assert (line.list_fen, line.voucher and line.voucher.amount_fen) == (fee, fee // 2)
        assert line.self_paid_fen == fee - fee // 2
    assert {line.voucher.programme for line in tuning.values() if line.voucher} == {"model", "compute"}


def test_call_lines_follow_from_usage_records(busy: Market) -> None:
    report = read(busy)
    calls = [line for line in report.lines if line.kind == "calls"]
    assert len(calls) == 2
    with busy.sessions.read() as session:
        records = session.scalars(select(Usage)).all()
    assert len(records) == 3 * len(CALLS)
    for line in calls:
        version = busy.filed_adapter if line.voucher else busy.unfiled_adapter
        mine = [row for row in records if row.version_id == version]
        quantities = {
            "prompt": sum(row.prompt_tokens - row.cached_tokens for row in mine),
            "cached": sum(row.cached_tokens for row in mine),
            "completion": sum(row.completion_tokens for row in mine),
        }
        assert line.quantities == quantities
        exact = exact_fen(busy, line.price_version_id, quantities)
        assert line.exact_ufen == exact * 1_000_000
        assert (line.list_fen, line.pending_ufen) == (int(exact), 0)
        paid = line.voucher.amount_fen if line.voucher else 0
        assert paid == (line.list_fen // 2 if line.voucher else 0)
        assert line.self_paid_fen == line.list_fen - paid


def test_balances_and_totals_close(busy: Market) -> None:
    report = read(busy)
    assert report.list_fen == report.voucher_fen + report.self_paid_fen == sum(line.list_fen for line in report.lines)
    assert report.lines[-1].running_fen == report.self_paid_fen
    balances = {(item.kind, item.title_en): item for item in report.balances}
    assert len(balances) == 5
    for item in report.balances:
        assert item.before_fen + item.credited_fen - item.charged_fen == item.after_fen
        assert item.held_fen == 0
    cash = balances["firm_cash", "Firm cash"]
    assert (cash.before_fen, cash.credited_fen, cash.charged_fen) == (0, 10_000, report.self_paid_fen)
    spent = {"model": 0, "compute": 0}
    for line in report.lines:
        if line.voucher:
            spent[line.voucher.programme] += line.voucher.amount_fen
    grants = [item for item in report.balances if item.kind == "grant"]
    assert sorted(item.charged_fen for item in grants) == sorted(spent.values())
    fund = balances["programme_fund", "Fund of Model voucher"]
    assert (fund.credited_fen, fund.charged_fen) == (1_500_000_000, 30_000)
    assert report.ledger_sum_fen == 0
    with busy.sessions.read() as session:
        assert check_books(session) == []


def test_parts_of_a_line_add_up_to_its_price(busy: Market) -> None:
    for line in read(busy).lines:
        assert sum(part.amount_fen for part in line.parts) == line.list_fen


def test_usage_shows_before_it_is_posted(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = market.draw("a")
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, "r1", (5000, 0, 0)))
    market.settle()
    line = read(market).lines[0]
    assert (line.list_fen, line.pending_ufen, line.quantities["prompt"]) == (0, 1_000_000, 5000)


def test_another_month_is_empty_and_a_malformed_one_refused(busy: Market) -> None:
    with busy.sessions.read() as session:
        later = statement(session, busy.owner("factory"), "2026-12")
        assert later.lines == []
        cash = later.balances[0]
        assert cash.before_fen == cash.after_fen == 10_000 - read(busy).self_paid_fen
        with pytest.raises(InvalidValueError, match="2026-13"):
            statement(session, busy.owner("factory"), "2026-13")
