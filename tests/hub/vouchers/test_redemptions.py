"""Pay first, redeem after: the share of what was paid in full, floored once, by two persons, once."""

from pathlib import Path

import pytest
from sqlalchemy import select

from hub.audit.signing import AuditKey
from hub.claims import service
from hub.claims.rules import NotRedeemableError
from hub.claims.tables import Redemption
from hub.errors import ConflictError, FourEyesError, InvalidValueError, NotFoundError
from hub.orders.cash import wallet
from hub.orders.tables import Charge
from hub.vouchers.rules import RuleRefusedError
from hub.vouchers.tables import Grant
from tests.hub.audit.test_export import failures
from tests.hub.audit.year import export, sign
from tests.hub.money.market import Market
from tests.hub.orders.test_rentals import HOUR_MS, Shop
from tests.hub.vouchers.steps import (
    add_invoice,
    add_proof,
    assert_books,
    balance_of,
    buy,
    draft,
    pay_in_full,
    put_in_force,
)

KEY = AuditKey("a secret of the tests")


@pytest.fixture
def paid(market: Market) -> tuple[Market, Grant]:
    """The model voucher reimburses; the factory has paid 4201 fen in full and holds invoice and proof."""
    return market, pay_in_full(market)


def request(market: Market, grant: Grant, who: str = "factory") -> Redemption:
    with market.sessions.write() as session:
        charges = service.list_redeemable(session, grant)
        return service.request_redemption(
            session, market.actors[who], grant.id, charge_ids=[row.id for row in charges], now=market.now
        )


def decide(market: Market, redemption: Redemption, who: str, decision: str, reason: str = "") -> None:
    with market.sessions.write() as session:
        service.review_redemption(
            session, market.actors[who], redemption.id, decision=decision, reason=reason, now=market.now
        )


def cash(market: Market) -> int:
    with market.sessions.read() as session:
        return wallet(session, market.owner("factory")).balance_fen


def test_nothing_is_deducted_and_the_share_is_paid_back_after_two_persons(paid: tuple[Market, Grant]) -> None:
    market, grant = paid
    assert cash(market) == 10_000 - 4201
    redemption = request(market, grant)
    # A third of 1201 + 3000 floored once is 1400, not 400 + 1000.
    assert (redemption.eligible_fen, redemption.amount_fen) == (4201, 1400)
    with pytest.raises(ConflictError, match="requested"):
        decide(market, redemption, "approver", "approve")
    decide(market, redemption, "checker", "check")
    with pytest.raises(FourEyesError):
        decide(market, redemption, "checker", "approve")
    decide(market, redemption, "approver", "approve")
    assert cash(market) == 10_000 - 4201 + 1400
    row = balance_of(market)
    assert (row.settled_fen, row.left_fen) == (1400, 28_600)
    assert draft(market).amount_fen == 1400
    assert_books(market)


def test_a_charge_is_redeemed_once_and_a_refusal_frees_it(paid: tuple[Market, Grant]) -> None:
    market, grant = paid
    with market.sessions.read() as session:
        charges = [row.id for row in service.list_redeemable(session, grant)]
    redemption = request(market, grant)
    with market.sessions.read() as session:
        assert service.list_redeemable(session, grant) == []
    with market.sessions.write() as session, pytest.raises(ConflictError, match="once"):
        service.request_redemption(session, market.actors["factory"], grant.id, charge_ids=charges, now=market.now)
    with pytest.raises(InvalidValueError, match="reason"):
        decide(market, redemption, "checker", "refuse")
    decide(market, redemption, "checker", "refuse", "the receipt is of another order")
    assert request(market, grant).amount_fen == 1400


def test_the_firm_takes_its_request_back_until_it_is_checked(paid: tuple[Market, Grant], tmp_path: Path) -> None:
    market, grant = paid
    redemption = request(market, grant)
    with market.sessions.write() as session:
        for who in ("rival", "operator"):
            with pytest.raises(NotFoundError):
                service.withdraw_redemption(session, market.actors[who], redemption.id, now=market.now)
        taken = service.withdraw_redemption(session, market.actors["factory"], redemption.id, now=market.now)
        assert taken.state == "withdrawn"
        with pytest.raises(ConflictError, match="is withdrawn"):
            service.withdraw_redemption(session, market.actors["factory"], redemption.id, now=market.now)
    with pytest.raises(ConflictError, match="withdrawn"):
        decide(market, redemption, "checker", "check")
    again = request(market, grant)
    assert again.amount_fen == 1400
    decide(market, again, "checker", "check")
    with market.sessions.write() as session, pytest.raises(ConflictError, match="until an officer checks it"):
        service.withdraw_redemption(session, market.actors["factory"], again.id, now=market.now)
    decide(market, again, "approver", "approve")
    sign(market.sessions, KEY, tmp_path, market)
    assert failures(export(market.sessions, KEY, tmp_path / "books", (None, "2026-11"))) == []
    assert_books(market)


def test_papers_come_before_the_request(market: Market) -> None:
    put_in_force(market, "model", mode="reimburse")
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    with pytest.raises(InvalidValueError, match="invoice, payment missing for 2026-11"):
        request(market, grant)


def test_it_pays_at_most_what_the_grant_has_left(paid: tuple[Market, Grant]) -> None:
    market, _ = paid
    small = market.award("model", 700, contract_no="B")
    add_invoice(market, small.id, "F-2")
    add_proof(market, small.id)
    assert request(market, small).amount_fen == 700


def test_what_the_rule_does_not_cover_is_refused_with_the_reason(market: Market) -> None:
    market.fund("factory", 30_000, "bank-1")
    put_in_force(market, "compute", mode="reimburse")
    grant = market.award("compute", 10_000)
    buy(market, offer="private")
    with market.sessions.write() as session:
        charges = {row.meter: row.id for row in session.scalars(select(Charge))}
        assert service.list_redeemable(session, grant) == []
        for meter, why in (("trained_tokens", "does not cover"), ("device_ms", "city's platform")):
            with pytest.raises(NotRedeemableError, match=why):
                service.request_redemption(
                    session, market.actors["factory"], grant.id, charge_ids=[charges[meter]], now=market.now
                )
        with pytest.raises(NotFoundError):
            service.request_redemption(
                session, market.actors["rival"], grant.id, charge_ids=list(charges.values()), now=market.now
            )


def test_a_rental_is_not_redeemed_by_a_rule_for_filed_bases(market: Market) -> None:
    put_in_force(market, "model", mode="reimburse")
    grant = market.award("model", 10_000)
    market.fund("factory", 30_000, "bank-1")
    shop = Shop(market)
    rental = shop.rent()
    shop.send(shop.report(rental, 1, HOUR_MS // 2, at=1800))
    shop.end(rental, at=1800)
    with market.sessions.write() as session:
        charge = session.scalars(select(Charge)).one()
        with pytest.raises(NotRedeemableError, match="device time rented by itself has no base model"):
            service.request_redemption(
                session, market.actors["factory"], grant.id, charge_ids=[charge.id], now=market.now
            )


def test_zone_and_basis_date_must_fit_the_mode(market: Market) -> None:
    with pytest.raises(RuleRefusedError, match="hold"):
        put_in_force(market, "model", basis_date="charge")
    with pytest.raises(RuleRefusedError, match="charge, redeem"):
        put_in_force(market, "model", basis_date="hold", mode="reimburse")
