"""Hosted calls paid first and redeemed after, and what a later correction takes back of redeemed fees."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from hub.claims import service
from hub.claims.rules import NotRedeemableError
from hub.claims.tables import Redemption, RedemptionClawBack
from hub.database import open_sessions
from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Charge
from hub.payouts.debts import read_debt
from hub.tables import import_tables, metadata
from hub.vouchers.tables import Grant
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market, build_market
from tests.hub.orders.call_steps import FEN, assert_sound, correct_calls, figures
from tests.hub.vouchers.steps import add_invoice, add_proof, balance_of, buy, draft, put_in_force
from tests.hub.vouchers.test_redemptions import cash, decide

HUNDRED_FEN = 125_000


def call(market: Market, name: str, tokens: int = HUNDRED_FEN, *, version_id: str = "") -> None:
    piece = market.draw(name, want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    version_id = version_id or market.filed_adapter
    market.send(market.record(piece.allowance_id, name, (0, 0, tokens), version_id=version_id))
    market.close(piece.allowance_id, through_seq=1)
    market.settle()


def prepare(market: Market) -> Grant:
    put_in_force(market, "model", mode="reimburse", share={"num": 1, "den": 2})
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    add_invoice(market, grant.id)
    add_proof(market, grant.id)
    return grant


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    if request.param == "sqlite":
        yield request.getfixturevalue("market")
        return
    template = request.getfixturevalue("postgresql")
    admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
    name = f"redeemed_{abs(hash(request.node.name))}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    import_tables()
    opened = open_sessions(template.format(database=name))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    yield build_market(opened, request.getfixturevalue("built_market").now, tmp_path)
    opened.close()


def redeem(market: Market, grant: Grant, *, pay: bool = True) -> Redemption:
    with market.sessions.write() as session:
        names = [row.id for row in service.list_redeemable(session, grant)]
        redemption = service.request_redemption(
            session, market.actors["factory"], grant.id, charge_ids=names, now=market.now
        )
    if pay:
        decide(market, redemption, "checker", "check")
        decide(market, redemption, "approver", "approve")
    return redemption


def take_back(market: Market) -> tuple[int, int]:
    """Do what the worker does: claw back, then collect."""
    with market.sessions.write() as session:
        return service.take_back_redeemed(session, market.now), service.collect_debts(session, market.now)


def test_a_bill_line_stands_for_all_its_calls_and_is_paid_once(either: Market) -> None:
    grant = prepare(either)
    call(either, "one")
    call(either, "two", 1_001)
    with either.sessions.read() as session:
        (entry,) = service.list_redeemable(session, grant)
        # 0.8008 fen of the second call carry: the line has posted 100 fen.
        assert (entry.meter, entry.fee_fen, len(entry.portions)) == ("calls", 100, 1)
    redemption = redeem(either, grant)
    assert (redemption.eligible_fen, redemption.amount_fen) == (100, 50)
    assert cash(either) == 10_000 - 100 + 50
    assert draft(either).amount_fen == 50
    with either.sessions.read() as session:
        assert service.list_redeemable(session, grant) == []
    with either.sessions.write() as session, pytest.raises(NotRedeemableError):
        service.request_redemption(session, either.actors["factory"], grant.id, charge_ids=[entry.id], now=either.now)
    call(either, "three")
    assert redeem(either, grant).eligible_fen == 100
    assert_sound(either)


def test_only_calls_of_filed_derived_models_count(market: Market) -> None:
    grant = prepare(market)
    call(market, "unfiled", version_id=market.unfiled_adapter)
    with market.sessions.read() as session:
        assert service.list_redeemable(session, grant) == []
        charge = session.scalars(select(Charge)).one()
    with market.sessions.write() as session, pytest.raises(NotRedeemableError, match="valid filing"):
        service.request_redemption(session, market.actors["factory"], grant.id, charge_ids=[charge.id], now=market.now)
    # Both kinds within one hold: only what the filed one cost counts, rounded down.
    piece = market.draw("mixed", want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    market.send(
        market.record(piece.allowance_id, "m1", (0, 0, 63_000)),
        market.record(piece.allowance_id, "m2", (0, 0, 63_000), version_id=market.unfiled_adapter),
    )
    market.close(piece.allowance_id, through_seq=2)
    market.settle()
    assert redeem(market, grant, pay=False).eligible_fen == 50


def test_a_correction_after_the_payment_takes_its_share_back(either: Market) -> None:
    grant = prepare(either)
    call(either, "one")
    call(either, "two")
    redeem(either, grant)
    line_id = line_of(either)
    assert draft(either).amount_fen == 100
    either.now += timedelta(days=1)
    correct_calls(either, line_id, figures("one", HUNDRED_FEN // 2))
    assert take_back(either) == (1, 0)
    assert take_back(either) == (0, 0)
    assert cash(either) == 10_000 - 150 + 75
    assert balance_of(either).settled_fen == 75
    assert draft(either).amount_fen == -25
    with either.sessions.read() as session:
        row = session.scalars(select(RedemptionClawBack)).one()
        assert (row.base, row.fee_fen, row.amount_fen, row.owed_fen) == (line_id, 50, 25, 0)
    correct_calls(either, line_id, figures("two", 0))
    take_back(either)
    assert (cash(either), balance_of(either).settled_fen) == (10_000 - 50 + 25, 25)
    assert_sound(either)


def test_an_odd_fee_is_floored_on_what_remains(market: Market) -> None:
    grant = prepare(market)
    call(market, "one")
    redeem(market, grant)
    correct_calls(market, line_of(market), figures("one", HUNDRED_FEN * 99 // 100))
    take_back(market)
    # Half of 99 is 49: a fen of fee less takes a whole fen of voucher back.
    assert balance_of(market).settled_fen == 49


def line_of(market: Market) -> str:
    with market.sessions.read() as session:
        return str(session.scalars(select(Charge.bill_line_id)).first())


def test_what_cash_does_not_cover_is_owed_and_collected_later(market: Market) -> None:
    grant = prepare(market)
    call(market, "one")
    redeem(market, grant)
    correct_calls(market, line_of(market), fault="provider")
    spend_all(market)
    take_back(market)
    assert owed(market) == 50
    assert balance_of(market).settled_fen == 0
    market.fund("factory", 30, "bank-2")
    assert take_back(market) == (0, 1)
    assert (owed(market), cash(market)) == (20, 0)
    market.fund("factory", 100, "bank-3")
    take_back(market)
    assert (owed(market), cash(market)) == (0, 80)
    assert_sound(market)


def spend_all(market: Market) -> None:
    with market.sessions.write() as session:
        purse = open_account(
            session, organisation_id=market.owner("factory"), kind=AccountKind.FIRM_CASH, now=market.now
        )
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=market.now)
        gone = move("tra_gone", purse, bank, amount_fen=purse.available_fen, code="withdrawn")
        post_group(session, "grp_gone", [gone], Posted("test", "t", "usr", market.now))


def owed(market: Market) -> int:
    with market.sessions.read() as session:
        return read_debt(session, market.owner("factory"), subject="redeemed")


def test_orders_too_and_before_the_request_only_what_is_left_counts(market: Market) -> None:
    grant = prepare(market)
    first, second = buy(market, offer="private"), buy(market, "key-2", offer="private")
    half = {"device_ms": 3_600_000, "trained_tokens": 500_000}
    correct_order(market, second.id, half)
    redemption = redeem(market, grant)
    assert redemption.eligible_fen == 4201 + 4201 - 1500
    correct_order(market, first.id, half)
    take_back(market)
    with market.sessions.read() as session:
        row = session.scalars(select(RedemptionClawBack)).one()
        assert (row.base, row.fee_fen, row.amount_fen) == (f"{first.id}/trained_tokens", 1500, 750)
    # An increase is redeemed by a request of its own, and counts once.
    correct_order(market, first.id, half | {"trained_tokens": 1_000_000})
    assert take_back(market) == (0, 0)
    assert redeem(market, grant).eligible_fen == 1500
    assert_sound(market)


def correct_order(market: Market, order_id: str, metered: dict[str, int]) -> None:
    with market.sessions.write() as session:
        propose_correction(session, market.actors["operator"], order_id, Wanted("meter", metered), now=market.now)
