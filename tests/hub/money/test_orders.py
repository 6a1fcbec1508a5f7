"""Orders: a quote with its cover, holds placed together, actuals settled, the rest released, refunds by fault."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from hub.errors import ConflictError, ForbiddenError, IdempotencyConflictError, NotFoundError
from hub.ledger.audit import check_books
from hub.ledger.rules import TransferConflictError
from hub.ledger.service import find_account
from hub.ledger.tables import PLATFORM, AccountKind
from hub.orders import service
from hub.orders.rules import (
    BaseNotFiledError,
    InsufficientFundsError,
    MeterRefusedError,
    QuoteExpiredError,
    QuoteStaleError,
)
from hub.orders.tables import Charge, Order, Quote
from hub.vouchers.service import list_grants
from tests.hub.money.market import Market

HOUR_MS = 3_600_000
# 1201 fen an hour; 3 fen per 1000 tokens. Half by voucher, rounded down.
COMPUTE = (1201, 600, 601)
TUNING = (3000, 1500, 1500)


def accept(market: Market, quote: Quote, key: str = "key-1", who: str = "factory") -> Order:
    with market.sessions.write() as session:
        return service.accept_quote(session, market.actors[who], quote.id, idempotency_key=key, now=market.now)


def settle(market: Market, order: Order, **metered: int) -> Order:
    with market.sessions.write() as session:
        return service.settle_order(session, order.id, metered=metered, now=market.now)


def refund(market: Market, order: Order, fault: str, **metered: int) -> Order:
    with market.sessions.write() as session:
        return service.refund_order(session, order.id, fault=fault, reason_code="test", metered=metered, now=market.now)


def balance(market: Market, kind: AccountKind, owner: str = PLATFORM) -> int:
    with market.sessions.read() as session:
        account = find_account(session, organisation_id=owner, kind=kind)
        return account.balance_fen if account else 0


def grants(market: Market) -> dict[str, tuple[int, int, int]]:
    with market.sessions.read() as session:
        return {
            row.programme.code: (row.held_fen, row.settled_fen, row.left_fen)
            for row in list_grants(session, market.owner("factory"))
        }


@pytest.fixture
def rich(market: Market) -> Market:
    """The factory has both vouchers and cash."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 10_000, "bank-1")
    return market


def test_quote_has_the_lines_of_the_policy(rich: Market) -> None:
    quote = rich.quote()
    assert [(line.meter, line.list_fen, line.voucher_fen, line.self_paid_fen) for line in quote.lines] == [
        ("device_ms", *COMPUTE),
        ("trained_tokens", *TUNING),
    ]
    assert [line.covers[0].programme for line in quote.lines] == ["compute", "model"]
    assert (quote.list_fen, quote.voucher_fen, quote.self_paid_fen) == (4201, 2100, 2101)
    assert quote.valid_until == rich.now + timedelta(hours=24)


def test_unfiled_base_pays_in_cash_and_says_why(rich: Market) -> None:
    quote = rich.quote(filed=False, offer="private")
    assert (quote.voucher_fen, quote.self_paid_fen) == (0, 4201)
    notes = {note["code"] for line in quote.lines for note in line.notes}
    assert notes == {"base_not_filed", "not_via_city_platform"}


def test_insisting_on_a_model_voucher_for_an_unfiled_base_is_refused(rich: Market) -> None:
    with pytest.raises(BaseNotFiledError, match="operator/plain"), rich.sessions.write() as session:
        service.quote_tuning(
            session,
            rich.actors["factory"],
            base_version_id=rich.unfiled_version,
            base_public_name="operator/plain",
            filed=False,
            offer=rich.offers["city"],
            dataset_version_id="dsv_1",
            device_ms=1,
            trained_tokens=1,
            plan_digest="p",
            subject="run_1",
            now=rich.now,
            require_model_voucher=True,
        )


def test_accepting_holds_vouchers_and_cash_together(rich: Market) -> None:
    order = accept(rich, rich.quote())
    assert (order.state, order.held_fen) == ("held", 4201)
    assert grants(rich) == {"model": (1500, 0, 28_500), "compute": (600, 0, 19_400)}
    with rich.sessions.read() as session:
        money = service.wallet(session, rich.owner("factory"))
        assert (money.held_fen, money.available_fen) == (2101, 7899)
        assert check_books(session) == []


def test_settling_charges_actuals_and_releases_the_rest(rich: Market) -> None:
    order = settle(rich, accept(rich, rich.quote()), device_ms=HOUR_MS // 2, trained_tokens=1_000_000)
    # Half an hour: floor(600.5) = 600, voucher 300, cash 300.
    assert (order.charged_fen, order.voucher_fen, order.cash_fen) == (3600, 1800, 1800)
    assert grants(rich) == {"model": (0, 1500, 28_500), "compute": (0, 300, 19_700)}
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == 600
    assert balance(rich, AccountKind.PLATFORM_INCOME) == 3000
    with rich.sessions.read() as session:
        money = service.wallet(session, rich.owner("factory"))
        assert (money.held_fen, money.available_fen) == (0, 8200)
        clearing = find_account(
            session, organisation_id=rich.owner("factory"), kind=AccountKind.CLEARING, subject=order.id
        )
        assert clearing is not None
        assert (clearing.balance_fen, clearing.credits_pending) == (0, 0)
        assert check_books(session) == []


def test_more_than_quoted_is_never_charged(rich: Market) -> None:
    order = settle(rich, accept(rich, rich.quote()), device_ms=10 * HOUR_MS, trained_tokens=9_000_000)
    assert (order.charged_fen, order.voucher_fen) == (4201, 2100)


def test_provider_is_paid_for_elapsed_time_and_the_platform_bears_the_difference(rich: Market) -> None:
    settle(rich, accept(rich, rich.quote()), device_ms=HOUR_MS // 2, trained_tokens=0, elapsed_device_ms=HOUR_MS)
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == 1201
    assert balance(rich, AccountKind.PLATFORM_COST) == -601


@pytest.mark.parametrize("fault", ["platform", "provider"])
def test_platform_and_provider_fault_refund_in_full(rich: Market, fault: str) -> None:
    order = refund(rich, accept(rich, rich.quote()), fault, device_ms=HOUR_MS, trained_tokens=500)
    assert (order.state, order.charged_fen) == ("refunded", 0)
    assert grants(rich) == {"model": (0, 0, 30_000), "compute": (0, 0, 20_000)}
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("factory")).available_fen == 10_000
        assert check_books(session) == []


def test_platform_fault_still_pays_the_provider(rich: Market) -> None:
    refund(rich, accept(rich, rich.quote()), "platform", elapsed_device_ms=HOUR_MS)
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == 1201


@pytest.mark.parametrize("fault", ["user", "customer", "cancel"])
def test_user_fault_and_cancel_pay_the_metered_part(rich: Market, fault: str) -> None:
    order = refund(rich, accept(rich, rich.quote()), fault, device_ms=HOUR_MS // 2, trained_tokens=1000)
    assert (order.state, order.charged_fen, order.voucher_fen) == ("refunded", 603, 301)


def test_ends_are_idempotent_and_exclude_each_other(rich: Market) -> None:
    order = accept(rich, rich.quote())
    first = settle(rich, order, device_ms=1000, trained_tokens=1000)
    again = settle(rich, order, device_ms=999_999, trained_tokens=1000)
    assert again.charged_fen == first.charged_fen
    with pytest.raises(ConflictError, match="was settled"):
        refund(rich, order, "platform")
    other = accept(rich, rich.quote(), "key-2")
    refund(rich, other, "provider")
    refund(rich, other, "provider")
    with pytest.raises(ConflictError, match="was refunded"):
        settle(rich, other, device_ms=1, trained_tokens=1)
    with rich.sessions.read() as session:
        assert len(session.scalars(select(Charge)).all()) == 2
        assert check_books(session) == []


def test_accepting_again_with_the_same_key_is_the_same_order(rich: Market) -> None:
    quote = rich.quote()
    assert accept(rich, quote).id == accept(rich, quote).id
    with pytest.raises(IdempotencyConflictError):
        accept(rich, rich.quote(), "key-1")
    with pytest.raises(ConflictError, match="accepted before"):
        accept(rich, quote, "key-2")


def test_too_little_cash_is_refused_with_all_figures(market: Market) -> None:
    market.fund("factory", 1000, "bank-1")
    quote = market.quote()
    with pytest.raises(InsufficientFundsError) as caught:
        accept(market, quote)
    assert caught.value.extra == {"quote_fen": 4201, "available_fen": 1000, "short_fen": 3201}
    with market.sessions.read() as session:
        assert session.scalars(select(Order)).all() == []
        assert service.wallet(session, market.owner("factory")).held_fen == 0
        assert session.get_one(Quote, quote.id).state == "open"


def test_a_voucher_spent_meanwhile_makes_the_quote_stale(market: Market) -> None:
    market.award("model", 1500)
    market.fund("factory", 100_000, "bank-1")
    first, second = market.quote(), market.quote()
    accept(market, first)
    with pytest.raises(QuoteStaleError):
        accept(market, second, "key-2")


def test_quotes_expire(rich: Market) -> None:
    quote = rich.quote()
    rich.now += timedelta(hours=24)
    with pytest.raises(QuoteExpiredError):
        accept(rich, quote)
    with rich.sessions.write() as session:
        assert service.expire_quotes(session, rich.now) == 1
        assert service.expire_quotes(session, rich.now) == 0


def test_other_firms_neither_see_nor_accept(rich: Market) -> None:
    quote = rich.quote()
    with pytest.raises(NotFoundError):
        accept(rich, quote, who="rival")
    order = accept(rich, quote)
    with rich.sessions.read() as session:
        with pytest.raises(NotFoundError):
            service.find_quote(session, rich.actors["rival"], quote.id)
        with pytest.raises(NotFoundError):
            service.read_order(session, rich.actors["rival"], order.id)
        assert service.read_order(session, rich.actors["auditor"], order.id).id == order.id
        assert service.list_orders(session, rich.owner("rival")) == []


def test_deposits_are_booked_once_and_by_operators(market: Market) -> None:
    market.fund("factory", 500, "bank-1")
    market.now += timedelta(hours=1)
    market.fund("factory", 500, "bank-1")
    with pytest.raises(TransferConflictError):
        market.fund("factory", 501, "bank-1")
    with market.sessions.write() as session:
        assert service.wallet(session, market.owner("factory")).available_fen == 500
        with pytest.raises(ForbiddenError):
            service.deposit(
                session, market.actors["factory"], market.owner("factory"), amount_fen=1, reference="x", now=market.now
            )


def test_unknown_meters_and_faults_are_refused(rich: Market) -> None:
    order = accept(rich, rich.quote())
    for metered in ({"coffee": 1}, {"device_ms": -1}, {"device_ms": 1}, {"trained_tokens": 1}):
        with pytest.raises(MeterRefusedError):
            settle(rich, order, **metered)
    with pytest.raises(MeterRefusedError, match="nobody"):
        refund(rich, order, "nobody")


def test_charges_cannot_be_changed(rich: Market) -> None:
    settle(rich, accept(rich, rich.quote()), device_ms=HOUR_MS, trained_tokens=1000)
    with pytest.raises(DatabaseError, match="append-only"), rich.sessions.write() as session:
        session.execute(text("UPDATE charges SET fee_fen = 0, voucher_fen = 0, cash_fen = 0"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    quoted=st.tuples(st.integers(0, 2 * HOUR_MS), st.integers(0, 2_000_000)),
    metered=st.tuples(st.integers(0, 3 * HOUR_MS), st.integers(0, 3_000_000)),
)
def test_whatever_is_metered_the_books_stay_sound(
    rich: Market, quoted: tuple[int, int], metered: tuple[int, int]
) -> None:
    rich.fund("factory", 10_000, f"bank-{quoted}-{metered}")
    quote = rich.quote(device_ms=quoted[0], trained_tokens=quoted[1])
    order = settle(rich, accept(rich, quote, quote.id), device_ms=metered[0], trained_tokens=metered[1])
    assert order.charged_fen <= quote.list_fen
    assert order.cash_fen <= quote.self_paid_fen
    assert order.voucher_fen * 2 <= order.charged_fen
    with rich.sessions.read() as session:
        assert service.wallet(session, rich.owner("factory")).held_fen == 0
        assert check_books(session) == []
