"""Time that the platform paid a provider: corrections of the same order pay it once and take back what is not due."""

import pytest

from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.orders import correction_steps, service
from hub.orders.rules import MeterRefusedError
from hub.orders.tables import Order
from hub.payouts.debts import read_debt
from tests.hub.money.market import Market
from tests.hub.orders.test_corrections import FULL, HOUR_MS, balance, check_bill, correct, decide, fresh_order, settled

QUARTER = HOUR_MS // 4
# An hour is 1201 fen, three quarters 900, a half 600, a quarter 300.


def half_billed(market: Market) -> Order:
    """An hour passed, half of it is billed, the platform paid 601 fen for the rest."""
    order = settled(market, device_ms=2 * QUARTER, elapsed_device_ms=HOUR_MS)
    assert (paid(market), cost(market)) == (1201, -601)
    return order


def paid(market: Market) -> int:
    return balance(market, AccountKind.PAYABLE, market.owner("provider"))


def cost(market: Market) -> int:
    return balance(market, AccountKind.PLATFORM_COST)


@pytest.mark.parametrize(("quarters", "left"), [(4, 0), (3, -301), (1, -901), (0, -1201)])
def test_time_that_the_platform_paid_is_not_paid_again_by_a_correction(rich: Market, quarters: int, left: int) -> None:
    order = half_billed(rich)
    correct(rich, order, metered=FULL | {"device_ms": quarters * QUARTER})
    assert (paid(rich), cost(rich)) == (1201, left)
    check_bill(rich, order)


def test_above_the_time_that_passed_the_provider_gets_what_the_bill_says(rich: Market) -> None:
    order = settled(rich, device_ms=QUARTER, elapsed_device_ms=2 * QUARTER)
    assert (paid(rich), cost(rich)) == (600, -300)
    correct(rich, order, metered=FULL)
    assert (paid(rich), cost(rich)) == (1201, 0)
    check_bill(rich, order)


def test_up_and_down_again_ends_where_it_began(rich: Market) -> None:
    order = half_billed(rich)
    for quarters in (4, 1, 3, 2):
        correct(rich, order, metered=FULL | {"device_ms": quarters * QUARTER})
        assert paid(rich) == 1201
        check_bill(rich, order)
    assert cost(rich) == -601


@pytest.mark.parametrize(("fault", "keeps", "left"), [("platform", 1201, -1201 - 3000), ("provider", 0, 0)])
def test_a_full_refund_leaves_the_provider_all_or_nothing(rich: Market, fault: str, keeps: int, left: int) -> None:
    order = half_billed(rich)
    correct(rich, order, fault=fault)
    assert (paid(rich), cost(rich)) == (keeps, left)
    check_bill(rich, order)
    correct(rich, order, metered=FULL | {"device_ms": QUARTER})
    assert paid(rich) == 1201
    check_bill(rich, order)


def test_what_was_paid_out_already_is_owed_with_the_time(rich: Market) -> None:
    order = half_billed(rich)
    with rich.sessions.write() as session:
        payable = open_account(session, organisation_id=rich.owner("provider"), kind=AccountKind.PAYABLE, now=rich.now)
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=rich.now)
        gone = move("tra_gone", payable, bank, amount_fen=1000, code="paid_out")
        post_group(session, "grp_gone", [gone], Posted("payout", "pay_1", "usr", rich.now))
    assert correct(rich, order, metered=FULL).advanced_fen == 0
    assert correct(rich, order, fault="provider").advanced_fen == 1000
    with rich.sessions.read() as session:
        assert read_debt(session, rich.owner("provider")) == 1000
    assert (paid(rich), cost(rich)) == (0, 0)
    check_bill(rich, order)


def test_an_order_refunded_by_the_platforms_fault_is_corrected_without_paying_twice(rich: Market) -> None:
    order = fresh_order(rich)
    passed = {"elapsed_device_ms": HOUR_MS}
    with rich.sessions.write() as session:
        service.refund_order(session, order.id, fault="platform", reason_code="x", metered=passed, now=rich.now)
    assert (paid(rich), cost(rich)) == (1201, -1201)
    correct(rich, order, metered={"device_ms": 2 * QUARTER, "trained_tokens": 0})
    assert (paid(rich), cost(rich)) == (1201, -601)
    check_bill(rich, order)
    # Nothing is billed once it was the provider's fault after all, and the time comes back as well.
    correct(rich, order, fault="provider")
    assert (paid(rich), cost(rich)) == (0, 0)
    check_bill(rich, order)


def test_time_comes_back_where_nothing_was_billed(rich: Market) -> None:
    order = fresh_order(rich)
    passed = {"elapsed_device_ms": HOUR_MS}
    with rich.sessions.write() as session:
        service.refund_order(session, order.id, fault="platform", reason_code="x", metered=passed, now=rich.now)
    assert correct(rich, order, fault="provider").fee_fen == 0
    assert (paid(rich), cost(rich)) == (0, 0)
    check_bill(rich, order)


def test_much_time_is_taken_back_by_two_persons(rich: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 1200)
    order = fresh_order(rich)
    passed = {"elapsed_device_ms": HOUR_MS}
    with rich.sessions.write() as session:
        service.refund_order(session, order.id, fault="platform", reason_code="x", metered=passed, now=rich.now)
    version = correct(rich, order, fault="provider")
    assert (version.state, paid(rich)) == ("proposed", 1201)
    assert (version.fee_fen, version.elapsed_fen) == (0, -1201)
    assert decide(rich, version, "approver", approve=True).state == "posted"
    assert (paid(rich), cost(rich)) == (0, 0)
    check_bill(rich, order)


def test_the_limit_counts_the_bill_and_the_time_of_earlier_corrections_too(
    rich: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 2000)
    order = half_billed(rich)
    # 300 fen go back to the firm and the platform pays 300 more for the time: 600 in all, twice, then once too often.
    for quarters, elapsed_fen in ((1, 300), (2, -300), (1, 300)):
        version = correct(rich, order, metered=FULL | {"device_ms": quarters * QUARTER})
        assert (abs(version.fee_fen), version.elapsed_fen, version.state) == (300, elapsed_fen, "posted")
    version = correct(rich, order, metered=FULL | {"device_ms": 2 * QUARTER})
    assert (version.elapsed_fen, version.state) == (-300, "proposed")


def test_the_size_of_a_correction_is_its_bill_and_its_time(rich: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 599)
    order = half_billed(rich)
    version = correct(rich, order, metered=FULL | {"device_ms": QUARTER})
    assert (version.fee_fen, version.elapsed_fen, version.state) == (-300, 300, "proposed")


def test_the_time_that_passed_may_be_repeated_and_not_corrected(rich: Market) -> None:
    order = half_billed(rich)
    with pytest.raises(MeterRefusedError, match="3600000 ms passed"):
        correct(rich, order, metered=FULL | {"elapsed_device_ms": HOUR_MS + 1})
    version = correct(rich, order, metered=FULL | {"elapsed_device_ms": HOUR_MS})
    assert version.metered == FULL
