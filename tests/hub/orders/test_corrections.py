"""Corrections of settled bills: differences as versions, back to who paid, by two persons above the limit."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.errors import (
    ConflictError,
    ForbiddenError,
    FourEyesError,
    InvalidValueError,
    NotFoundError,
    ReasonMissingError,
)
from hub.ledger.audit import check_books
from hub.ledger.invariants import check_invariants
from hub.ledger.movements import move
from hub.ledger.rules import PeriodClosedError
from hub.ledger.service import Posted, find_account, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind, Transfer
from hub.orders import correction_steps, corrections, deciding, service
from hub.orders.corrections import Wanted
from hub.orders.rules import InsufficientFundsError, MeterRefusedError
from hub.orders.tables import BillVersion, Charge, ChargePart, Order
from hub.payouts.debts import read_debt
from hub.reports.service import statement
from hub.vouchers.service import list_grants, revoke_grant
from hub.vouchers.tables import ClawBack
from tests.hub.money.market import Market

HOUR_MS = 3_600_000
FULL = {"device_ms": HOUR_MS, "trained_tokens": 1_000_000}


def settled(market: Market, **metered: int) -> Order:
    quote = market.quote()
    with market.sessions.write() as session:
        order = service.accept_quote(session, market.actors["factory"], quote.id, idempotency_key="k", now=market.now)
        return service.settle_order(session, order.id, metered={**FULL, **metered}, now=market.now)


def correct(
    market: Market, order: Order, *, metered: Mapping[str, int] | None = None, fault: str | None = None, days: int = 20
) -> BillVersion:
    wanted = Wanted("the meter was wrong", metered, fault)
    with market.sessions.write() as session:
        now = market.now + timedelta(days=days)
        return corrections.propose_correction(session, market.actors["operator"], order.id, wanted, now=now)


def balance(market: Market, kind: AccountKind, owner: str = PLATFORM) -> int:
    with market.sessions.read() as session:
        account = find_account(session, organisation_id=owner, kind=kind)
        return account.balance_fen if account else 0


def left_of_grants(market: Market) -> dict[str, int]:
    with market.sessions.read() as session:
        return {row.programme.code: row.left_fen for row in list_grants(session, market.owner("factory"))}


def check_bill(market: Market, order: Order) -> None:
    """Every version adds up, its parts too, the bill keeps within each share, and the books are sound."""
    with market.sessions.read() as session:
        charges = list(session.scalars(select(Charge).where(Charge.order_id == order.id)))
        for charge in charges:
            assert charge.fee_fen == sum(part.amount_fen for part in charge.parts)
        for meter in {charge.meter for charge in charges}:
            fee = sum(charge.fee_fen for charge in charges if charge.meter == meter)
            voucher = sum(charge.voucher_fen for charge in charges if charge.meter == meter)
            assert 0 <= voucher * 2 <= fee
        fresh = session.get_one(Order, order.id)
        assert fresh.charged_fen == sum(charge.fee_fen for charge in charges)
        assert fresh.voucher_fen == sum(charge.voucher_fen for charge in charges)
        clearing = find_account(
            session, organisation_id=order.organisation_id, kind=AccountKind.CLEARING, subject=order.id
        )
        assert clearing is not None
        assert clearing.balance_fen == 0
        assert check_books(session) == []
        assert [(found.invariant.id, found.examples) for found in check_invariants(session) if found.broken] == []


def test_a_lower_figure_gives_back_to_cash_and_grant_in_the_open_month(rich: Market) -> None:
    order = settled(rich)
    version = correct(rich, order, metered={"device_ms": HOUR_MS // 2, "trained_tokens": 1_000_000})
    # One hour is 1201 = 600 + 601; half an hour is 600 = 300 + 300.
    assert (version.state, version.number) == ("posted", 2)
    assert (version.fee_fen, version.voucher_fen, version.cash_fen) == (-601, -300, -301)
    assert left_of_grants(rich) == {"model": 28_500, "compute": 19_700}
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000 - 300 - 1500
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == 600
    with rich.sessions.read() as session:
        charge = session.scalars(select(Charge).where(Charge.version == 2)).one()
        assert (charge.month, charge.corrects_month, charge.quantity) == ("2026-12", "2026-11", -HOUR_MS // 2)
    check_bill(rich, order)


def test_a_higher_figure_charges_at_most_the_quote(rich: Market) -> None:
    order = settled(rich, device_ms=HOUR_MS // 2)
    version = correct(rich, order, metered={"device_ms": 9 * HOUR_MS, "trained_tokens": 1_000_000})
    assert (version.fee_fen, version.voucher_fen, version.cash_fen) == (601, 300, 301)
    check_bill(rich, order)


@pytest.mark.parametrize(("fault", "provider_keeps", "cost"), [("platform", 1201, -1201 - 3000), ("provider", 0, 0)])
def test_fault_of_platform_or_provider_refunds_in_full(
    rich: Market, fault: str, provider_keeps: int, cost: int
) -> None:
    order = settled(rich)
    version = correct(rich, order, fault=fault)
    assert version.fee_fen == -4201
    assert left_of_grants(rich) == {"model": 30_000, "compute": 20_000}
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == provider_keeps
    assert balance(rich, AccountKind.PLATFORM_COST) == cost
    check_bill(rich, order)


def test_money_of_an_ended_grant_goes_on_to_its_fund_and_is_noted(rich: Market) -> None:
    order = settled(rich)
    with rich.sessions.write() as session:
        for row in list_grants(session, rich.owner("factory")):
            revoke_grant(session, rich.actors["operator"], row.grant.id, reason="ended", now=rich.now)
        fund_before = sum_funds(session)
    version = correct(rich, order, fault="provider")
    with rich.sessions.read() as session:
        assert sum_funds(session) == fund_before + 2100
        noted = session.scalars(select(ClawBack).order_by(ClawBack.amount_fen)).all()
        assert [(row.amount_fen, row.to_fund, row.correction_id) for row in noted] == [
            (600, True, version.id),
            (1500, True, version.id),
        ]
    check_bill(rich, order)


def sum_funds(session: Session) -> int:
    funds = session.scalars(select(Account).where(Account.kind == AccountKind.PROGRAMME_FUND))
    return sum(account.balance_fen for account in funds)


def test_the_platform_advances_what_was_paid_out_already(rich: Market) -> None:
    order = settled(rich)
    with rich.sessions.write() as session:
        payable = open_account(session, organisation_id=rich.owner("provider"), kind=AccountKind.PAYABLE, now=rich.now)
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=rich.now)
        gone = move("tra_gone", payable, bank, amount_fen=1000, code="paid_out")
        post_group(session, "grp_gone", [gone], Posted("payout", "pay_1", "usr", rich.now))
    version = correct(rich, order, fault="provider")
    assert version.advanced_fen == 1000
    assert balance(rich, AccountKind.PAYABLE, rich.owner("provider")) == 0
    assert balance(rich, AccountKind.PLATFORM_COST) == 0
    with rich.sessions.read() as session:
        assert read_debt(session, rich.owner("provider")) == 1000
    check_bill(rich, order)


def test_an_increase_that_the_firm_cannot_pay_posts_nothing(rich: Market) -> None:
    order = settled(rich, device_ms=0)
    with rich.sessions.write() as session:
        cash = open_account(session, organisation_id=rich.owner("factory"), kind=AccountKind.FIRM_CASH, now=rich.now)
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=rich.now)
        gone = move("tra_gone", cash, bank, amount_fen=cash.available_fen, code="withdrawn")
        post_group(session, "grp_gone", [gone], Posted("test", "t", "usr", rich.now))
    before = count_transfers(rich)
    with pytest.raises(InsufficientFundsError, match="601 fen of the firm's cash"):
        correct(rich, order, metered=FULL)
    assert count_transfers(rich) == before
    with rich.sessions.read() as session:
        assert session.scalars(select(BillVersion)).all() == []


def count_transfers(market: Market) -> int:
    with market.sessions.read() as session:
        return session.scalar(select(func.count()).select_from(Transfer)) or 0


def test_above_the_limit_a_second_person_approves(rich: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 1000)
    order = settled(rich)
    version = correct(rich, order, fault="provider")
    assert (version.state, version.number) == ("proposed", None)
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000 - 2101
    with pytest.raises(ConflictError, match="waits for approval"):
        correct(rich, order, metered=FULL | {"device_ms": 0})
    with pytest.raises(FourEyesError):
        decide(rich, version, "operator", approve=True)
    posted = decide(rich, version, "approver", approve=True)
    assert (posted.state, posted.number) == ("posted", 2)
    assert decide(rich, version, "approver", approve=True).number == 2
    with pytest.raises(ConflictError, match="decided once"):
        decide(rich, version, "checker", approve=False)
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000
    check_bill(rich, order)


def test_a_refused_correction_moves_nothing_and_another_may_follow(
    rich: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 1000)
    order = settled(rich)
    version = correct(rich, order, fault="provider")
    with pytest.raises(ReasonMissingError):
        decide(rich, version, "approver", approve=False)
    assert decide(rich, version, "approver", approve=False, reason="wrong order").state == "refused"
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000 - 2101
    assert correct(rich, order, metered=FULL | {"device_ms": HOUR_MS // 2}).number == 2


def decide(market: Market, version: BillVersion, who: str, *, approve: bool, reason: str = "") -> BillVersion:
    with market.sessions.write() as session:
        return deciding.decide_correction(
            session, market.actors[who], version.id, approve=approve, reason=reason, now=market.now
        )


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (Wanted(" ", FULL), ReasonMissingError),
        (Wanted("why", FULL, month="2026-10"), PeriodClosedError),
        (Wanted("why", FULL, "platform"), InvalidValueError),
        (Wanted("why"), InvalidValueError),
        (Wanted("why", {"device_ms": 1}), MeterRefusedError),
        (Wanted("why", FULL | {"device_ms": -1}), MeterRefusedError),
        (Wanted("why", FULL | {"device_ms": 2**63}), MeterRefusedError),
        (Wanted("why", FULL | {"device_ms": 1.5}), MeterRefusedError),  # type: ignore[dict-item]
        (Wanted("why", fault="cancel"), InvalidValueError),
        (Wanted("why", fault="weather"), MeterRefusedError),
        (Wanted("why", FULL), ConflictError),
    ],
)
def test_what_cannot_be_is_refused_and_the_ledger_untouched(
    rich: Market, wanted: Wanted, error: type[Exception]
) -> None:
    order = settled(rich)
    before = count_transfers(rich)
    with pytest.raises(error), rich.sessions.write() as session:
        corrections.propose_correction(session, rich.actors["operator"], order.id, wanted, now=rich.now)
    assert count_transfers(rich) == before


def test_only_an_operator_corrects_and_only_closed_orders(rich: Market) -> None:
    quote = rich.quote()
    with rich.sessions.write() as session:
        order = service.accept_quote(session, rich.actors["factory"], quote.id, idempotency_key="k", now=rich.now)
    with pytest.raises(ConflictError, match="not settled yet"):
        correct(rich, order, fault="platform")
    for who in ("factory", "auditor", "provider"):
        with pytest.raises(ForbiddenError), rich.sessions.write() as session:
            corrections.propose_correction(
                session, rich.actors[who], order.id, Wanted("why", fault="platform"), now=rich.now
            )
    with pytest.raises(NotFoundError), rich.sessions.write() as session:
        corrections.propose_correction(
            session, rich.actors["operator"], "ord_none", Wanted("why", fault="platform"), now=rich.now
        )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(figures=st.lists(st.tuples(st.integers(0, HOUR_MS), st.integers(0, 1_000_000)), min_size=2, max_size=3))
def test_corrected_bills_end_where_settling_at_once_would(rich: Market, figures: list[tuple[int, int]]) -> None:
    provider, passed = rich.owner("provider"), {"elapsed_device_ms": HOUR_MS // 3}
    order, before = fresh_order(rich), balance(rich, AccountKind.PAYABLE, provider)
    with rich.sessions.write() as session:
        service.settle_order(session, order.id, metered=named(figures[0]) | passed, now=rich.now)
    for wanted in figures[1:]:
        with suppress(ConflictError):  # nothing to correct
            correct(rich, order, metered=named(wanted), days=0)
    other, between = fresh_order(rich), balance(rich, AccountKind.PAYABLE, provider)
    with rich.sessions.write() as session:
        service.settle_order(session, other.id, metered=named(figures[-1]) | passed, now=rich.now)
    assert sums(rich, order) == sums(rich, other)
    assert between - before == balance(rich, AccountKind.PAYABLE, provider) - between
    check_bill(rich, order)
    for each in (order, other):
        with suppress(ConflictError):  # neither billed nor paid
            correct(rich, each, fault="provider", days=0)
    assert balance(rich, AccountKind.PAYABLE, provider) == before
    assert left_of_grants(rich) == {"model": 30_000, "compute": 20_000}


def fresh_order(market: Market) -> Order:
    quote = market.quote()
    with market.sessions.write() as session:
        return service.accept_quote(
            session, market.actors["factory"], quote.id, idempotency_key=quote.id, now=market.now
        )


def named(figures: tuple[int, int]) -> dict[str, int]:
    return dict(zip(("device_ms", "trained_tokens"), figures, strict=True))


def sums(market: Market, order: Order) -> tuple[int, int, dict[tuple[str, str], int]]:
    with market.sessions.read() as session:
        fresh = session.get_one(Order, order.id)
        rows = session.execute(
            select(ChargePart.party, ChargePart.organisation_id, func.sum(ChargePart.amount_fen))
            .join(Charge, Charge.id == ChargePart.charge_id)
            .where(Charge.order_id == order.id)
            .group_by(ChargePart.party, ChargePart.organisation_id)
        )
        parts = {(party, owner): int(total) for party, owner, total in rows if total}
        return fresh.voucher_fen, fresh.cash_fen, parts


def test_small_corrections_of_one_bill_need_a_second_person_once_they_add_up(
    rich: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 1000)
    order = settled(rich)
    assert correct(rich, order, metered=named((HOUR_MS // 2, 1_000_000))).state == "posted"  # 601 fen
    waiting = correct(rich, order, metered=named((0, 1_000_000)))  # 600 more
    assert (waiting.fee_fen, waiting.state, waiting.number) == (-600, "proposed", None)
    with pytest.raises(FourEyesError):
        decide(rich, waiting, "operator", approve=True)
    assert decide(rich, waiting, "approver", approve=True).number == 3
    assert correct(rich, order, metered=named((0, 1_000_000 - 133_000))).state == "posted"  # 399: 1000 in all
    assert correct(rich, order, metered=named((0, 1_000_000 - 133_300))).state == "proposed"  # 1 fen above
    check_bill(rich, order)


def test_what_another_person_approved_or_refused_does_not_count_towards_the_limit(
    rich: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 1000)
    order = settled(rich)
    for number, approve in enumerate((False, True)):
        large = correct(rich, order, metered=named((HOUR_MS, 500_000)))
        assert large.state == "proposed"
        decide(rich, large, "approver", approve=approve, reason=f"look {number}")
    assert correct(rich, order, metered=named((HOUR_MS, 800_000))).state == "posted"  # 900 of one person
    assert correct(rich, order, metered=named((HOUR_MS // 2, 800_000))).state == "proposed"
    check_bill(rich, order)


def test_after_a_refund_by_the_platforms_fault_receivers_give_back_once(rich: Market) -> None:
    order, provider = settled(rich), rich.owner("provider")
    correct(rich, order, fault="platform")
    assert balance(rich, AccountKind.PAYABLE, provider) == 1201
    for number, tokens in enumerate((500_000, 600_000), start=3):
        version, fee = correct(rich, order, metered=named((0, tokens))), tokens * 3 // 1000
        assert (version.number, version.advanced_fen) == (number, 0)
        assert balance(rich, AccountKind.PAYABLE, provider) == 0  # no device time, no pay; and never twice
        assert sums(rich, order) == (fee // 2, fee // 2, {("seller", rich.owner("operator")): fee})
        assert balance(rich, AccountKind.PLATFORM_INCOME) + balance(rich, AccountKind.PLATFORM_COST) == fee
        check_bill(rich, order)
    with pytest.raises(ConflictError, match="billed so already"):
        correct(rich, order, metered=named((0, 600_000)))
    correct(rich, order, metered=named((HOUR_MS // 2, 600_000)))
    assert balance(rich, AccountKind.PAYABLE, provider) == 600
    check_bill(rich, order)
    with rich.sessions.read() as session:
        lines = statement(session, rich.owner("factory"), "2026-12").lines
    moved = [(line.list_fen, {part.organisation_id: part.amount_fen for part in line.parts}) for line in lines]
    assert [fee for fee, parts in moved if fee != sum(parts.values())] == []
    assert sorted(parts[provider] for _, parts in moved if provider in parts) == [-1201, 600]


def test_what_a_paid_out_provider_owes_after_the_platforms_fault_is_advanced_once(rich: Market) -> None:
    order = settled(rich)
    correct(rich, order, fault="platform")
    with rich.sessions.write() as session:
        payable = open_account(session, organisation_id=rich.owner("provider"), kind=AccountKind.PAYABLE, now=rich.now)
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=rich.now)
        gone = move("tra_gone", payable, bank, amount_fen=1201, code="paid_out")
        post_group(session, "grp_gone", [gone], Posted("payout", "pay_1", "usr", rich.now))
    advanced = [correct(rich, order, metered=named((0, tokens))).advanced_fen for tokens in (500_000, 600_000)]
    assert advanced == [1201, 0]
    with rich.sessions.read() as session:
        assert read_debt(session, rich.owner("provider")) == 1201
    check_bill(rich, order)
