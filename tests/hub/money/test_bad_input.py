"""Bad input of the money over HTTP: each is refused by the name of its rule or field, the ledger untouched."""

from typing import Any

import pytest
from sqlalchemy import func, select

from hub.ledger.audit import trial_balance
from hub.ledger.tables import Entry, Transfer
from tests.hub.money.market import PAPER, Market
from tests.hub.money.test_money_api import Client, client

__all__ = ["client"]

DEPOSIT, APPLY, CLAIMS = "/api/v1/deposits", "/api/v1/voucher-applications", "/api/v1/rule-versions"
AMOUNTS = (1.5, 1.0, "12", True, None, -1, 0, 2**63, 2**63 - 1, 10**30)


def count(market: Market) -> tuple[int, int, int]:
    with market.sessions.read() as session:
        balance = trial_balance(session)
        return (
            session.scalar(select(func.count()).select_from(Transfer)) or 0,
            session.scalar(select(func.count()).select_from(Entry)) or 0,
            balance.posted_sum_fen + balance.pending_sum_fen,
        )


@pytest.mark.parametrize("amount", AMOUNTS, ids=str)
def test_an_amount_that_is_no_sum_of_money_is_refused_by_its_field(client: Client, amount: Any) -> None:
    before = count(client.market)
    body = {"organisation_id": client.market.owner("factory"), "amount_fen": amount, "reference": "bank-x"}
    answers = [client.call("POST", DEPOSIT, "operator", body)]
    asked = {"programme": "model", "asked_fen": amount, "contract_no": "HT", "evidence": [PAPER]}
    answers.append(client.call("POST", APPLY, "factory", asked))
    for answer, field in zip(answers, ("amount_fen", "asked_fen"), strict=True):
        assert answer.status_code in (400, 422), answer.text
        assert field in answer.text
        assert answer.json["code"]
    assert count(client.market) == before


@pytest.mark.parametrize(
    ("amount", "code"),
    [(-1, "amount_not_positive"), (0, "amount_not_positive"), (2**63 - 1, "amount_too_large")],
)
def test_the_ledgers_own_rules_have_names(client: Client, amount: int, code: str) -> None:
    body = {"organisation_id": client.market.owner("factory"), "amount_fen": amount, "reference": "bank-x"}
    assert client.call("POST", DEPOSIT, "operator", body).json["code"] == code


def test_another_firms_money_is_not_found(client: Client) -> None:
    market = client.market
    market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    quote, before = market.quote(), count(market)
    accept = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "rival", {"idempotency_key": "k"})
    assert (accept.status_code, accept.json["code"]) == (404, "not_found")
    wrong = {"organisation_id": "org_nobody", "amount_fen": 1, "reference": "bank-x"}
    assert client.call("POST", DEPOSIT, "operator", wrong).json["code"] == "not_found"
    own = {"organisation_id": market.owner("factory"), "amount_fen": 1, "reference": "bank-x"}
    assert client.call("POST", DEPOSIT, "factory", own).status_code == 403
    assert count(market) == before


def test_an_unknown_programme_is_named(client: Client) -> None:
    before = count(client.market)
    body = {"programme": "moon", "asked_fen": 1, "contract_no": "HT", "evidence": [PAPER]}
    answer = client.call("POST", APPLY, "factory", body)
    assert (answer.status_code, answer.json["code"], "moon" in answer.text) == (404, "not_found", True)
    assert count(client.market) == before


def test_a_closed_month_takes_no_correction(client: Client) -> None:
    market = client.market
    market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    quote = market.quote()
    order = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "factory", {"idempotency_key": "k"}).json["id"]
    before = count(market)
    body = {"reason": "why", "fault": "platform", "month": "2026-01"}
    answer = client.call("POST", f"/api/v1/orders/{order}/corrections", "operator", body)
    assert (answer.status_code, answer.json["code"]) == (409, "period_closed")
    assert count(market) == before


def test_one_person_does_not_draft_and_approve(client: Client) -> None:
    before = count(client.market)
    asked = {"programme": "model", "asked_fen": 30_000, "contract_no": "HT", "evidence": [PAPER]}
    path = f"{APPLY}/{client.call('POST', APPLY, 'factory', asked).json['id']}/reviews"
    assert client.call("POST", path, "checker", {"decision": "check"}).status_code == 201
    answer = client.call("POST", path, "checker", {"decision": "approve"})
    assert (answer.status_code, answer.json["code"]) == (403, "four_eyes")
    assert count(client.market) == before
