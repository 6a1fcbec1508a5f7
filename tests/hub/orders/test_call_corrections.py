"""Corrections of hosted calls: differences as versions of their bill line, vouchers clawed back, late calls billed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text

from hub.claims import service as claims
from hub.database import open_sessions
from hub.errors import ConflictError, ForbiddenError, FourEyesError, InvalidValueError, NotFoundError
from hub.ledger.rules import PeriodClosedError
from hub.ledger.service import find_account
from hub.ledger.tables import PLATFORM, AccountKind
from hub.orders import correction_steps, deciding, service
from hub.orders.call_corrections import CallsWanted, bill_late_calls, propose_call_correction
from hub.orders.call_figures import CallFigures, list_late
from hub.orders.rules import InsufficientFundsError, MeterRefusedError
from hub.orders.tables import BillLine, BillVersion, CallCorrection, Charge
from hub.reports.records import list_records
from hub.reports.service import statement
from hub.tables import import_tables, metadata
from hub.vouchers.service import list_grants, revoke_grant
from hub.vouchers.tables import ClawBack
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market, add_adapter, build_market
from tests.hub.money.test_own_calls import part, sell
from tests.hub.orders.call_steps import FEN, assert_sound, call, correct_calls, figures, read_line
from tests.hub.orders.test_corrections import balance, count_transfers, left_of_grants
from tests.hub.payouts.test_payouts import ask, conclude, send
from tests.hub.vouchers.steps import add_invoice

HUNDRED_FEN = 125_000  # tokens


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    """The rich market on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("rich")
        return
    template = request.getfixturevalue("postgresql")
    admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
    name = f"calls_{abs(hash(request.node.name))}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    import_tables()
    opened = open_sessions(template.format(database=name))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    pattern: Market = request.getfixturevalue("built_market")
    market = build_market(opened, pattern.now, tmp_path)
    market.award("model", 30_000, contract_no="A")
    market.fund("factory", 10_000, "bank-1")
    yield market
    opened.close()


def test_wrong_tokens_give_back_to_cash_and_grant_in_the_open_month(either: Market) -> None:
    line_id = call(either, "one", HUNDRED_FEN)
    call(either, "two", HUNDRED_FEN)
    either.now += timedelta(days=20)
    version = correct_calls(either, line_id, figures("one", HUNDRED_FEN // 4))
    assert (version.state, version.number) == ("posted", 2)
    assert (version.fee_fen, version.voucher_fen, version.cash_fen) == (-75, -38, -37)
    line = read_line(either, line_id)
    assert (line.exact_ufen, line.posted_fen, line.subsidised_fen) == (125 * FEN, 125, 62)
    assert left_of_grants(either)["model"] == 30_000 - 62
    assert balance(either, AccountKind.FIRM_CASH, either.owner("factory")) == 10_000 - 63
    with either.sessions.read() as session:
        charge = session.scalars(select(Charge).where(Charge.version == 2)).one()
        assert (charge.month, charge.corrects_month, charge.fee_fen) == ("2026-12", "2026-11", -75)
        assert sum(part.amount_fen for part in charge.parts) == -75
        noted = session.scalars(select(ClawBack)).one()
        assert (noted.charge_id, noted.amount_fen, noted.to_fund) == (charge.id, 38, False)
    assert_sound(either)


def test_statements_show_the_correction_in_its_own_month_and_leave_the_first_bill(rich: Market) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    with rich.sessions.read() as session:
        before = statement(session, rich.owner("factory"), "2026-11")
    rich.now += timedelta(days=20)
    version = correct_calls(rich, line_id, figures("one", 0))
    with rich.sessions.read() as session:
        november, december = (statement(session, rich.owner("factory"), month) for month in ("2026-11", "2026-12"))
        assert november.lines == before.lines
        line = december.lines[0]
        assert (line.kind, line.list_fen, line.self_paid_fen, line.corrects_month) == (
            "correction",
            -100,
            -50,
            "2026-11",
        )
        cash = next(row for row in december.balances if row.kind == "firm_cash")
        assert cash.after_fen - cash.before_fen == 50
        records = list_records(session, rich.actors["factory"], line.line_id)
        assert [(row.record_id, row.cost_ufen, row.note_en) for row in records.items] == [
            ("one:0", -100 * FEN, version.reason)
        ]
        with pytest.raises(NotFoundError):
            list_records(session, rich.actors["rival"], line.line_id)


def test_an_increase_is_cash_first_and_the_month_close_pays_the_vouchers_share(either: Market) -> None:
    line_id = call(either, "one", HUNDRED_FEN)
    either.now += timedelta(days=20)
    version = correct_calls(either, line_id, figures("one", 2 * HUNDRED_FEN))
    assert (version.fee_fen, version.voucher_fen, version.cash_fen) == (100, 0, 100)
    with either.sessions.write() as session:
        assert service.close_months(session, either.now) == 1
    assert read_line(either, line_id).subsidised_fen == 100
    assert balance(either, AccountKind.FIRM_CASH, either.owner("factory")) == 10_000 - 100
    # Down again: what the top-up paid comes back as well.
    assert correct_calls(either, line_id, figures("one", 0)).voucher_fen == -100
    assert left_of_grants(either)["model"] == 30_000
    assert balance(either, AccountKind.FIRM_CASH, either.owner("factory")) == 10_000
    assert_sound(either)


@pytest.mark.parametrize(("fault", "cost"), [("platform", -200), ("provider", 0)])
def test_a_fault_refunds_every_call_and_only_the_platforms_leaves_receivers_paid(
    rich: Market, fault: str, cost: int
) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    call(rich, "two", HUNDRED_FEN)
    income = balance(rich, AccountKind.PLATFORM_INCOME)
    version = correct_calls(rich, line_id, fault=fault)
    assert (version.fee_fen, version.voucher_fen) == (-200, -100)
    assert balance(rich, AccountKind.FIRM_CASH, rich.owner("factory")) == 10_000
    assert balance(rich, AccountKind.PLATFORM_COST) == cost
    # The operator sells these calls itself, so that a provider's fault takes the platform's own income back.
    assert balance(rich, AccountKind.PLATFORM_INCOME) == income - (200 if fault == "provider" else 0)
    call(rich, "three", HUNDRED_FEN)
    assert balance(rich, AccountKind.PLATFORM_INCOME) == income - (100 if fault == "provider" else -100)
    assert_sound(rich)


def test_money_claimed_before_is_a_negative_line_of_the_next_claim(rich: Market) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    grant_id = grant_of(rich)
    add_invoice(rich, grant_id)
    assert draft_claim(rich) == 50
    correct_calls(rich, line_id, figures("one", HUNDRED_FEN // 2))
    assert draft_claim(rich) == -25
    assert_sound(rich)


def draft_claim(market: Market) -> int:
    with market.sessions.write() as session:
        return claims.draft_claim(
            session, market.actors["checker"], programme="model", period="2026-11", now=market.now
        ).amount_fen


def grant_of(market: Market) -> str:
    with market.sessions.read() as session:
        rows = list_grants(session, market.owner("factory"))
        return next(row.grant.id for row in rows if row.programme.code == "model")


def test_of_two_grants_the_one_that_paid_last_gets_its_money_back_first(market: Market) -> None:
    market.award("model", 40, contract_no="A")
    market.fund("factory", 10_000, "bank-1")
    line_id = call(market, "one", HUNDRED_FEN)  # 100 fen, of which the grant pays 40
    market.award("model", 60, contract_no="B")
    market.now += timedelta(days=20)
    with market.sessions.write() as session:
        assert service.close_months(session, market.now) == 1  # the second grant tops up 10
    correct_calls(market, line_id, figures("one", HUNDRED_FEN * 6 // 10))  # 60 fen: 30 at most
    assert sorted(settled_of_grants(market)) == [0, 30]
    with market.sessions.read() as session:
        noted = session.scalars(select(ClawBack).order_by(ClawBack.amount_fen)).all()
        assert [row.amount_fen for row in noted] == [10, 10]
        assert len({row.grant_id for row in noted}) == 2
    assert_sound(market)


def settled_of_grants(market: Market) -> list[int]:
    with market.sessions.read() as session:
        return [row.settled_fen for row in list_grants(session, market.owner("factory"))]


def test_an_ended_grants_money_goes_on_to_its_fund(rich: Market) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    with rich.sessions.write() as session:
        revoke_grant(session, rich.actors["operator"], grant_of(rich), reason="ended", now=rich.now)
    correct_calls(rich, line_id, fault="provider")
    assert left_of_grants(rich)["model"] == 0
    with rich.sessions.read() as session:
        assert [row.to_fund for row in session.scalars(select(ClawBack))] == [True]
    assert_sound(rich)


def test_a_late_record_is_billed_once_on_the_line_it_belongs_to(either: Market) -> None:
    piece = either.draw("lost")
    assert isinstance(piece, AllowanceGrant)
    either.close(piece.allowance_id)
    either.settle()
    reply = either.send(either.record(piece.allowance_id, "late", (0, 0, HUNDRED_FEN)), first_seq=1)
    assert [row.code for row in reply.rejected] == ["allowance_closed"]
    with either.sessions.read() as session:
        assert [row.seq for row in list_late(session)] == [1]
    either.now += timedelta(days=20)
    (version,) = bill_late(either)
    assert (version.fee_fen, version.voucher_fen, version.state) == (100, 0, "posted")
    with either.sessions.read() as session:
        assert list_late(session) == []
        row = session.scalars(select(CallCorrection)).one()
        assert (row.late, row.was_ufen, row.cost_ufen) == (True, 0, 100 * FEN)
    assert read_line(either, str(version.bill_line_id)).month == "2026-11"
    with pytest.raises(ConflictError, match="nothing to correct"):
        bill_late(either)
    # A late call is corrected like any other.
    assert correct_calls(either, str(version.bill_line_id), figures("late", 0)).fee_fen == -100
    assert_sound(either)


def bill_late(market: Market, *sources: tuple[str, int, int]) -> list[BillVersion]:
    with market.sessions.write() as session:
        return bill_late_calls(
            session, market.actors["operator"], sources or [("gw", 1, 1)], reason="gateway came back", now=market.now
        )


def test_above_the_limit_a_second_person_approves(rich: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 50)
    line_id = call(rich, "one", HUNDRED_FEN)
    version = correct_calls(rich, line_id, figures("one", 0))
    assert (version.state, version.number) == ("proposed", None)
    with pytest.raises(ConflictError, match="waits for approval"):
        correct_calls(rich, line_id, figures("one", 1))
    with pytest.raises(FourEyesError):
        decide(rich, version, "operator", approve=True)
    assert decide(rich, version, "approver", approve=True).number == 2
    assert decide(rich, version, "approver", approve=True).number == 2
    assert read_line(rich, line_id).posted_fen == 0
    again = correct_calls(rich, line_id, figures("one", HUNDRED_FEN))
    assert decide(rich, again, "approver", approve=False, reason="no").state == "refused"
    assert read_line(rich, line_id).posted_fen == 0
    assert_sound(rich)


def test_small_corrections_of_one_line_need_a_second_person_once_they_add_up(
    rich: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction_steps, "APPROVAL_LIMIT_FEN", 50)
    line_id = call(rich, "one", HUNDRED_FEN)
    states = [correct_calls(rich, line_id, figures("one", HUNDRED_FEN * left // 100)).state for left in (60, 50, 49)]
    assert states == ["posted", "posted", "proposed"]
    assert read_line(rich, line_id).posted_fen == 50
    assert_sound(rich)


def decide(market: Market, version: BillVersion, who: str, *, approve: bool, reason: str = "") -> BillVersion:
    with market.sessions.write() as session:
        return deciding.decide_correction(
            session, market.actors[who], version.id, approve=approve, reason=reason, now=market.now
        )


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (CallsWanted(" ", [figures("one", 1)]), InvalidValueError),
        (CallsWanted("why", [figures("one", 1)], month="2026-10"), PeriodClosedError),
        (CallsWanted("why"), InvalidValueError),
        (CallsWanted("why", [figures("one", -1)]), MeterRefusedError),
        (CallsWanted("why", [figures("one", 2**63)]), MeterRefusedError),
        (CallsWanted("why", [CallFigures("one", 0, 0, 0, 1.5)]), MeterRefusedError),  # type: ignore[arg-type]
        (CallsWanted("why", [CallFigures("one", 0, 1, 2, 0)]), MeterRefusedError),
        (CallsWanted("why", [figures("one", 1), figures("one", 2)]), MeterRefusedError),
        (CallsWanted("why", [figures("nobody", 1)]), NotFoundError),
        (CallsWanted("why", [figures("one", HUNDRED_FEN)]), ConflictError),
        (CallsWanted("why", fault="cancel"), InvalidValueError),
        (CallsWanted("why", fault="weather"), MeterRefusedError),
        (CallsWanted("why", [figures("one", 10**8)]), InsufficientFundsError),
    ],
)
def test_what_cannot_be_is_refused_and_the_ledger_untouched(
    rich: Market, wanted: CallsWanted, error: type[Exception]
) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    before = count_transfers(rich)
    with pytest.raises(error), rich.sessions.write() as session:
        propose_call_correction(session, rich.actors["operator"], line_id, wanted, now=rich.now)
    assert count_transfers(rich) == before


def test_only_an_operator_corrects_and_only_calls_at_rest(rich: Market) -> None:
    line_id = call(rich, "one", HUNDRED_FEN)
    for who in ("factory", "auditor", "provider"):
        with pytest.raises(ForbiddenError):
            correct_calls(rich, line_id, figures("one", 0), who=who)
    piece = rich.draw("open", want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    rich.send(rich.record(piece.allowance_id, "open", (0, 0, 1000)), first_seq=2)
    with rich.sessions.write() as session:
        service.rate_usage(session, rich.now)
    with pytest.raises(ConflictError, match="not resolved yet"):
        correct_calls(rich, line_id, figures("open", 0))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    tokens=st.lists(st.integers(0, 400_000), min_size=2, max_size=3),
    changes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400_000)), min_size=1, max_size=4),
)
def test_a_corrected_line_ends_where_the_right_tokens_would(
    built_market: Market, tokens: list[int], changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    market = copied(built_market, tmp_path_factory.mktemp("calls"))
    try:
        market.award("model", 30_000, contract_no="A")
        market.fund("factory", 10_000, "bank-1")
        for number, count in enumerate(tokens):
            line_id = call(market, str(number), count)
        final = list(tokens)
        for index, count in changes:
            if index < len(final) and final[index] != count:
                final[index] = count
                correct_calls(market, line_id, figures(str(index), count))
        market.now += timedelta(days=20)
        with market.sessions.write() as session:
            service.close_months(session, market.now)
        line, exact = read_line(market, line_id), sum(final) * 800
        assert (line.exact_ufen, line.posted_fen) == (exact, exact // FEN)
        assert line.subsidised_fen == exact // FEN // 2
        assert balance(market, AccountKind.FIRM_CASH, market.owner("factory")) == 10_000 - (
            line.posted_fen - line.subsidised_fen
        )
        assert balance(market, AccountKind.PLATFORM_INCOME, PLATFORM) == line.posted_fen
        with market.sessions.read() as session:
            clearing = find_account(
                session, organisation_id=market.owner("factory"), kind=AccountKind.CLEARING, subject="usage"
            )
            assert clearing is None or clearing.balance_fen == 0
        assert_sound(market)
    finally:
        market.sessions.close()


def copied(pattern: Market, home: Path) -> Market:
    database = pattern.sessions.engine.url.database
    assert database is not None
    path = home / "hub.sqlite3"
    path.write_bytes(Path(database).read_bytes())
    return replace(pattern, sessions=open_sessions(f"sqlite:///{path}"), actors=dict(pattern.actors))


def sell_by_integrator(market: Market) -> str:
    """Let the integrator sell an adapter of its own, 7 tenths for itself; return the version."""
    version_id = add_adapter(market, "integrator", market.filed_version, "sold")
    sell(
        market,
        "integrator",
        version_id,
        [part(market, "integrator", "integrator", 7), part(market, "platform", None, 3)],
    )
    return version_id


def call_version(market: Market, name: str, version_id: str, tokens: int) -> str:
    piece = market.draw(name, want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, name, (0, 0, tokens), version_id=version_id), first_seq=1)
    market.close(piece.allowance_id, through_seq=1)
    market.settle()
    with market.sessions.read() as session:
        return session.scalars(select(BillLine.id)).one()


def test_a_split_goes_on_from_what_receivers_kept(rich: Market) -> None:
    version_id = sell_by_integrator(rich)
    line_id = call_version(rich, "one", version_id, HUNDRED_FEN)
    correct_calls(rich, line_id, fault="platform")
    assert balance(rich, AccountKind.PAYABLE, rich.owner("integrator")) == 70
    call_version(rich, "two", version_id, HUNDRED_FEN)
    assert balance(rich, AccountKind.PAYABLE, rich.owner("integrator")) == 140
    correct_calls(rich, line_id, figures("two", 0))
    assert balance(rich, AccountKind.PAYABLE, rich.owner("integrator")) == 70
    assert balance(rich, AccountKind.PLATFORM_COST) == -100
    assert_sound(rich)


def test_an_integrator_that_was_paid_owes_its_part_and_its_next_payout_pays_it(rich: Market) -> None:
    version_id = sell_by_integrator(rich)
    line_id = call_version(rich, "one", version_id, HUNDRED_FEN)
    payout = ask(rich, 70, who="integrator")
    send(rich, payout)
    conclude(rich, payout, "paid", reference="bank-1")
    version = correct_calls(rich, line_id, figures("one", HUNDRED_FEN // 10))
    assert (version.fee_fen, version.advanced_fen) == (-90, 63)
    call_version(rich, "two", version_id, HUNDRED_FEN)
    after = ask(rich, 70, key="p-2", who="integrator")
    assert (after.netted_fen, after.sent_fen) == (63, 7)
    assert_sound(rich)
