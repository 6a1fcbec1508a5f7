"""Fault 18: one person for both halves of a check is refused by service, API, page, command line and database."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from hub.claims.service import draft_claim, list_redeemable, request_redemption, review_redemption
from hub.cli.programmes import programmes
from hub.errors import FourEyesError
from hub.orders import service as orders
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.deciding import decide_correction
from hub.organisations.tables import User
from hub.payouts.service import conclude_payout, earned, request_payout, send_payout
from hub.payouts.tables import PayoutState
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from hub.vouchers import service as vouchers
from hub.vouchers.tables import Application, Grant
from hub.web import SESSION_COOKIE
from marketplace_ui.app import create_app
from tests.faults import claiming, story
from tests.faults.ground import Ground
from tests.faults.tally import take_tally
from tests.hub.money.market import PAPER, Market
from tests.web import served

HALVES = {
    "rule": (
        "/api/v1/rules/{id}/approve",
        {},
        "/operator/rules/{id}/approve",
        "UPDATE rule_versions SET state = 'approved', approved_by = drafted_by WHERE id = '{id}'",
    ),
    "application": (
        "/api/v1/voucher-applications/{id}/reviews",
        {"decision": "approve", "reason": "again"},
        "/vouchers/applications/{id}",
        None,
    ),
    "claim": (
        "/api/v1/claims/{id}/submission",
        {},
        "/operator/claims/{id}/submission",
        "UPDATE claims SET state = 'submitted', submitted_by = drafted_by WHERE id = '{id}'",
    ),
    "correction": (
        "/api/v1/corrections/{id}/decision",
        {"decision": "approve", "reason": "again"},
        "/operator/settlement/corrections/{id}",
        "UPDATE bill_versions SET decided_by = proposed_by WHERE id = '{id}'",
    ),
    "redemption": (
        "/api/v1/redemptions/{id}/reviews",
        {"decision": "approve", "reason": "again"},
        "/operator/redemptions/{id}",
        "UPDATE redemptions SET state = 'approved', approved_by = checked_by WHERE id = '{id}'",
    ),
    "payout": (
        "/api/v1/payouts/{id}/result",
        {"result": "paid", "bank_reference": "bank-9", "reason": "found"},
        "/operator/settlement/payouts/{id}/result",
        None,
    ),
}
"""By what is decided: the API's path and body, the page's path, and the statement that goes around both."""


@dataclass
class Half:
    """Something that `who` has done the first half of."""

    id: str
    who: str
    again: Callable[[], object]


@pytest.fixture
def halves(market: Market) -> dict[str, Half]:
    """One of each, half done."""
    made = {"rule": _draft_rule(market), "application": _check_application(market)}
    for step in (story.deposit, story.apply, _award_contract, story.quote, story.reserve, story.settle):
        step(market)
    made["claim"] = _draft_claim(market)
    made["payout"] = _lose_payout(market)
    made["correction"] = _propose_correction(market)
    claiming.promise(market)
    claiming.prepay(market)
    made["redemption"] = _check_redemption(market)
    return made


def test_one_person_never_does_both_halves(
    ground: Ground, market: Market, halves: dict[str, Half], tmp_path: Path
) -> None:
    """Six checks by two, five ways round each where there are five; nothing of it changes a row of money."""
    assert halves.keys() == HALVES.keys()
    app, before = _open_app(market, tmp_path), story.read_balances(market)
    ways = 0
    for name, half in halves.items():
        api, body, page, statement = HALVES[name]
        with pytest.raises(FourEyesError):
            half.again()
        answer = _browse(app, market, half.who, json=True).post(api.format(id=half.id), json=body)
        assert (answer.status_code, answer.json["code"]) == (403, "four_eyes"), (name, answer.text)
        shown = _browse(app, market, half.who).post(page.format(id=half.id), data=body)
        assert shown.status_code == 422, (name, shown.status_code)
        assert "nother" in shown.text, name  # "another person", "another operator"
        ways += 3
        if statement is not None:
            with pytest.raises(DBAPIError, match="four_eyes"), market.sessions.write() as session:
                session.execute(text(statement.format(id=half.id)))
            ways += 1
    assert _approve_by_command(app, market, halves["rule"]) == "four_eyes"
    assert story.read_balances(market) == before
    tally = take_tally(market.sessions, f"18 refused {ways + 1} ways", sent=list(halves), acked=[], found=[])
    assert tally.sound, tally


def _open_app(market: Market, home: Path) -> Flask:
    secrets = Secrets({name: f"{name} of the tests" for name in NAMES})
    settings = Settings(home=home, database_url="")
    return create_app(settings=settings, secrets=secrets, sessions=market.sessions, clock=lambda: market.now)


def _browse(app: Flask, market: Market, who: str, *, json: bool = False) -> Any:
    client = app.test_client()
    client.set_cookie("guanmo_language", "en")
    if json:
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {market.tokens[who]}"
    else:
        client.set_cookie(SESSION_COOKIE, market.tokens[who])
    return client


def _approve_by_command(app: Flask, market: Market, half: Half) -> str:
    with served(app) as hub:
        words = ["approve", half.id, "--hub", hub, "--key", market.tokens[half.who], "--yes"]
        return getattr(CliRunner().invoke(programmes, words).exception, "code", "")


def _draft_rule(market: Market) -> Half:
    with market.sessions.write() as session:
        rule = vouchers.rule_of_day(session, vouchers.find_programme(session, "compute").id, market.now)
        assert rule is not None
        drafted = vouchers.draft_rule(
            session,
            market.actors["checker"],
            programme="compute",
            body=rule.body,
            effective_from_at=market.now,
            effective_to_at=None,
            source="test",
            now=market.now,
        )

    def approve() -> None:
        with market.sessions.write() as session:
            vouchers.approve_rule(session, market.actors["checker"], drafted.id, now=market.now)

    return Half(drafted.id, "checker", approve)


def _award_contract(market: Market) -> None:
    """Approve the story's own applications, and leave the one that is half checked."""
    with market.sessions.write() as session:
        waiting = session.scalars(select(Application.id).where(Application.contract_no == "HT")).all()
        for application_id in waiting:
            market.review(session, application_id, "checker", "check")
            market.review(session, application_id, "approver", "approve")


def _check_application(market: Market) -> Half:
    with market.sessions.write() as session:
        application = vouchers.apply_for_voucher(
            session,
            market.actors["integrator"],
            programme="model",
            asked_fen=1_000,
            contract_no="HALF",
            evidence=[PAPER],
            now=market.now,
        )
        market.review(session, application.id, "checker", "check")

    def approve() -> None:
        with market.sessions.write() as session:
            market.review(session, application.id, "checker", "approve")

    return Half(application.id, "checker", approve)


def _draft_claim(market: Market) -> Half:
    with market.sessions.write() as session:
        grant = session.scalars(select(Grant).order_by(Grant.amount_fen)).first()
        assert grant is not None
        claiming.add_papers(session, market, grant.id, "F-1")
        drafted = draft_claim(session, market.actors["checker"], programme="compute", period="2026-11", now=market.now)

    def submit() -> None:
        claiming.submit(market, drafted.id, "checker")

    return Half(drafted.id, "checker", submit)


def _lose_payout(market: Market) -> Half:
    provider, operator = market.actors["provider"], market.actors["operator"]
    with market.sessions.write() as session:
        amount = earned(session, provider.organisation_id)[0]
        payout = request_payout(session, provider, amount_fen=amount, idempotency_key="pay-1", now=market.now)
        send_payout(session, operator, payout.id, now=market.now)
        conclude_payout(session, operator, payout.id, result=PayoutState.UNKNOWN, reason="silent", now=market.now)

    def settle() -> None:
        with market.sessions.write() as session:
            conclude_payout(
                session,
                operator,
                payout.id,
                result=PayoutState.PAID,
                bank_reference="b",
                reason="found",
                now=market.now,
            )

    return Half(payout.id, "operator", settle)


def _propose_correction(market: Market) -> Half:
    """A fine-tune of 100 hours billed in full, to be given back: above what one person may correct."""
    market.fund("factory", 400_000, "bank-big")
    quote = market.quote(offer="private", device_ms=100 * story.HOUR_MS, trained_tokens=1_000)
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key="big", now=market.now)
    with market.sessions.write() as session:
        metered = {"device_ms": 100 * story.HOUR_MS, "trained_tokens": 1_000}
        orders.settle_order(session, order.id, metered=metered, now=market.now)
    with market.sessions.write() as session:
        wanted = Wanted(reason="never ran", metered={"device_ms": 0, "trained_tokens": 0})
        version = propose_correction(session, market.actors["operator"], order.id, wanted, now=market.now)
    assert version.state == "proposed"

    def decide() -> None:
        with market.sessions.write() as session:
            decide_correction(
                session, market.actors["operator"], version.id, approve=True, reason="mine", now=market.now
            )

    return Half(version.id, "operator", decide)


def _check_redemption(market: Market) -> Half:
    with market.sessions.write() as session:
        grant = claiming.find_promised(session)
        claiming.add_papers(session, market, grant.id, "F-2")
    with market.sessions.write() as session:
        charges = [row.id for row in list_redeemable(session, grant)]
        redemption = request_redemption(session, market.actors["factory"], grant.id, charge_ids=charges, now=market.now)
        review_redemption(session, market.actors["checker"], redemption.id, decision="check", reason="", now=market.now)

    def approve() -> None:
        with market.sessions.write() as session:
            review_redemption(
                session, market.actors["checker"], redemption.id, decision="approve", reason="", now=market.now
            )

    return Half(redemption.id, "checker", approve)


@pytest.mark.parametrize("code", ["own_password_needed", "same_hand"])
def test_an_account_that_the_first_person_made_or_knows_the_password_of_is_no_second_person(
    market: Market, halves: dict[str, Half], tmp_path: Path, code: str
) -> None:
    app, before = _open_app(market, tmp_path), story.read_balances(market)
    for name, half in halves.items():
        api, body, _, _ = HALVES[name]
        with market.sessions.write() as session:
            second = session.get_one(User, market.actors["approver"].user_id)
            if code == "same_hand":
                second.added_by = market.actors[half.who].user_id
            else:
                second.one_time_password = True
        answer = _browse(app, market, "approver", json=True).post(api.format(id=half.id), json=body)
        assert (answer.status_code, answer.json["code"]) == (403, code), (name, answer.text)
    assert story.read_balances(market) == before
