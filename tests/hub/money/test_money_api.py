"""The money rooms over HTTP: what firms, operators, auditors and the gateway may see and do."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from hub.app import create_api
from hub.metering.witness import take_witness
from hub.reports.closing import close_statement
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from serving import contract
from tests.described import watch_answers
from tests.hub.money.market import PAPER, Market

ROOMS = ("organisations", "ledger", "prices", "vouchers", "metering", "orders", "reports")
SECRETS = Secrets({name: f"{name} of the tests" for name in NAMES})


@dataclass
class Client:
    """The API as an outside client sees it."""

    app: OpenAPI
    market: Market

    def call(self, method: str, path: str, who: str | None = None, body: dict[str, Any] | None = None) -> TestResponse:
        headers = {"Accept-Language": "en"}
        if who is not None:
            token = self.market.tokens.get(who) or SECRETS[f"{who}.token"]
            headers["Authorization"] = f"Bearer {token}"
        return self.app.test_client().open(path, method=method, headers=headers, json=body)

    def read(self, path: str, who: str) -> Any:
        answer = self.call("GET", path, who)
        assert answer.status_code == 200, answer.text
        return answer.json


@pytest.fixture
def client(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    # Only these rooms: the test must not depend on rooms above the money.
    monkeypatch.setattr("hub.app.ROOMS", ROOMS)
    settings = Settings(home=tmp_path, database_url="")
    app = create_api(settings, secrets=SECRETS, sessions=market.sessions, clock=lambda: market.now)
    return Client(watch_answers(app), market)


def apply(client: Client, asked_fen: int = 30_000) -> str:
    body = {"programme": "model", "asked_fen": asked_fen, "contract_no": "HT-1", "evidence": [PAPER]}
    answer = client.call("POST", "/api/v1/voucher-applications", "factory", body)
    assert answer.status_code == 201, answer.text
    found: str = answer.json["id"]
    return found


def test_voucher_from_application_to_grant(client: Client) -> None:
    path = f"/api/v1/voucher-applications/{apply(client)}"
    for who, decision in (("checker", "check"), ("approver", "approve")):
        answer = client.call("POST", f"{path}/reviews", who, {"decision": decision})
        assert answer.status_code == 201, answer.text
    assert client.read(path, "factory")["state"] == "approved"
    grants = client.read("/api/v1/grants", "factory")["items"]
    assert [(grant["programme"], grant["left_fen"]) for grant in grants] == [("model", 30_000)]
    assert client.read("/api/v1/grants", "rival")["items"] == []
    assert len(client.read("/api/v1/grants", "auditor")["items"]) == 1


def test_one_person_may_not_decide_twice(client: Client) -> None:
    path = f"/api/v1/voucher-applications/{apply(client)}/reviews"
    client.call("POST", path, "checker", {"decision": "check"})
    answer = client.call("POST", path, "checker", {"decision": "approve"})
    assert (answer.status_code, answer.json["code"]) == (403, "four_eyes")


def test_programmes_are_public_and_name_their_rule(client: Client) -> None:
    answer = client.call("GET", "/api/v1/programmes")
    programmes = {item["code"]: item for item in answer.json["items"]}
    assert programmes["model"]["open"]
    assert programmes["model"]["rule"]["number"] == 1
    assert not programmes["edge_node"]["open"]
    assert "edge nodes" in programmes["edge_node"]["refusal"]["en"]
    assert len(client.call("GET", "/api/v1/programmes/compute/rules").json["items"]) == 1


def test_rules_are_drafted_and_approved_over_http(client: Client) -> None:
    rule = client.read("/api/v1/programmes/model/rules", "operator")["items"][0]
    body = {**rule["body"], "share": {"num": 1, "den": 4}}
    draft = {"body": body, "effective_from_at": "2026-12-01T00:00:00+08:00", "source": "test"}
    answer = client.call("POST", "/api/v1/programmes/model/rules", "checker", draft)
    assert answer.status_code == 201, answer.text
    path = f"/api/v1/rules/{answer.json['id']}/approve"
    assert client.call("POST", path, "checker").json["code"] == "four_eyes"
    assert client.call("POST", path, "approver").json["state"] == "approved"
    assert client.call("POST", path, "factory").status_code == 403


def test_quote_to_order_over_http(client: Client) -> None:
    client.market.award("model", 30_000)
    body = {"organisation_id": client.market.owner("factory"), "amount_fen": 10_000, "reference": "bank-1"}
    assert client.call("POST", "/api/v1/deposits", "operator", body).json["wallet"]["available_fen"] == 10_000
    assert client.call("POST", "/api/v1/deposits", "factory", body).status_code == 403
    quote = client.market.quote()
    shown = client.read(f"/api/v1/quotes/{quote.id}", "factory")
    assert shown["list_fen"] == shown["voucher_fen"] + shown["self_paid_fen"] == 4201
    assert shown["lines"][0]["covers"][0]["share"] == {"num": 1, "den": 2}
    answer = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "factory", {"idempotency_key": "k"})
    assert (answer.status_code, answer.json["state"]) == (201, "held")
    again = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "factory", {"idempotency_key": "k"})
    assert again.json["id"] == answer.json["id"]
    assert client.read("/api/v1/wallet", "factory")["held_fen"] == 4201 - shown["voucher_fen"]
    assert [order["id"] for order in client.read("/api/v1/orders", "factory")["items"]] == [answer.json["id"]]


def test_too_little_money_is_a_problem_with_figures(client: Client) -> None:
    quote = client.market.quote()
    answer = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "factory", {"idempotency_key": "k"})
    assert answer.status_code == 402
    assert answer.content_type == "application/problem+json"
    figures = ("insufficient_funds", 4201, 0, 4201)
    assert tuple(answer.json[name] for name in ("code", "quote_fen", "available_fen", "short_fen")) == figures


@pytest.mark.parametrize("path", ["wallet", "quotes", "orders", "grants", "statement", "usage", "earnings"])
def test_foreign_money_is_not_found_but_open_to_the_auditor(client: Client, path: str) -> None:
    url = f"/api/v1/{path}?organisation_id={client.market.owner('factory')}"
    assert client.call("GET", url, "rival").status_code == 404
    assert client.call("GET", url, "auditor").status_code == 200
    assert client.call("GET", url, "factory").status_code == 200
    assert client.call("GET", url).status_code == 401


def test_the_orders_of_a_run_are_its_firms_and_the_auditors(client: Client) -> None:
    client.market.fund("factory", 10_000, "bank-1")
    quote = client.market.quote()
    order = client.call("POST", f"/api/v1/quotes/{quote.id}/accept", "factory", {"idempotency_key": "k"}).json
    path = f"/api/v1/orders?subject={quote.subject}"
    for who in ("factory", "auditor", "operator"):
        assert client.read(path, who)["items"] == [order]
    assert client.read("/api/v1/orders?subject=run_none", "auditor")["items"] == []
    assert client.read("/api/v1/orders", "auditor")["items"] == []
    for who in ("rival", "provider", "integrator"):
        assert client.read(path, who)["items"] == []
        assert client.call("GET", f"{path}&organisation_id={order['organisation_id']}", who).status_code == 404
    assert client.read(f"{path}&organisation_id={order['organisation_id']}", "auditor")["items"] == [order]
    assert client.read(f"{path}&organisation_id={client.market.owner('rival')}", "auditor")["items"] == []


def test_foreign_ids_are_not_found(client: Client) -> None:
    client.market.fund("factory", 10_000, "bank-1")
    quote, application = client.market.quote(), apply(client)
    account = client.read("/api/v1/ledger/accounts", "factory")["items"][0]["id"]
    for path in (
        f"quotes/{quote.id}",
        f"voucher-applications/{application}",
        f"ledger/accounts/{account}/entries",
        f"ledger/accounts?organisation_id={client.market.owner('factory')}",
    ):
        assert client.call("GET", f"/api/v1/{path}", "rival").status_code == 404
        assert client.call("GET", f"/api/v1/{path}", "factory").status_code == 200


def test_the_auditor_reads_everything_and_writes_nothing(client: Client) -> None:
    application, quote = apply(client), client.market.quote()
    assert client.read("/api/v1/ledger/check", "auditor") == {"sound": True, "problems": []}
    assert client.read("/api/v1/ledger/trial-balance", "auditor")["posted_sum_fen"] == 0
    assert client.call("GET", "/api/v1/ledger/trial-balance", "factory").status_code == 403
    assert len(client.read("/api/v1/voucher-applications", "auditor")["items"]) == 1
    writes: list[tuple[str, dict[str, Any]]] = [
        ("deposits", {"organisation_id": "org_x", "amount_fen": 1, "reference": "r"}),
        (f"voucher-applications/{application}/reviews", {"decision": "check"}),
        ("voucher-applications", {"programme": "model", "asked_fen": 1, "contract_no": "x", "evidence": [PAPER]}),
        (f"quotes/{quote.id}/accept", {"idempotency_key": "k"}),
        (
            "prices",
            {
                "subject_kind": "offer",
                "subject": "x",
                "lines": [{"meter": "device_ms", "amount_fen": 1, "per_units": 1}],
            },
        ),
        ("splits", {"parts": []}),
    ]
    for path, body in writes:
        assert client.call("POST", f"/api/v1/{path}", "auditor", body).status_code in (403, 404), path


def test_prices_over_http(client: Client) -> None:
    lines = [{"meter": "device_ms", "amount_fen": 900, "per_units": 3_600_000}]
    body = {"subject_kind": "offer", "subject": "x", "lines": lines}
    price = client.call("POST", "/api/v1/prices", "provider", body).json
    assert client.read(f"/api/v1/prices/{price['id']}", "factory")["lines"] == lines
    assert client.call("POST", f"/api/v1/prices/{price['id']}/withdraw", "rival").status_code == 403
    assert client.call("POST", f"/api/v1/prices/{price['id']}/withdraw", "provider").json["state"] == "withdrawn"
    assert client.read("/api/v1/prices?subject=x", "factory")["items"] == []
    for broken in ({"subject_kind": "tea"}, {"lines": [{**lines[0], "per_units": 0}]}, {"subject": "default"}):
        answer = client.call("POST", "/api/v1/prices", "provider", body | broken)
        assert answer.status_code in (403, 422), answer.text
    split = {"parts": [{"party": "pool", "num": 3, "den": 2}]}
    assert client.call("POST", "/api/v1/splits", "integrator", split).json["code"] == "bad_split"


def test_the_gateways_life_over_http(client: Client) -> None:
    market = client.market
    market.fund("factory", 10_000, "bank-1")
    wanted = contract.AllowanceRequest("gw", 1, "k", market.owner("factory"), None, market.call_price, 100_000_000)
    answer = client.call("POST", "/internal/v1/allowances", "gateway", contract.encode(wanted))
    assert answer.status_code == 200, answer.text
    grant = contract.decode(contract.AllowanceGrant, answer.json)
    record = market.record(grant.allowance_id, "req-1", (10_000, 0, 1250))
    batch = contract.encode(contract.UsageBatch("gw", 1, 1, (record,)))
    reply = contract.decode(contract.UsageReply, client.call("POST", "/internal/v1/usage", "gateway", batch).json)
    assert (reply.through_seq, reply.rejected) == (1, ())
    close = contract.encode(contract.AllowanceClose(grant.allowance_id, 3_000_000, 1))
    assert client.call("POST", "/internal/v1/allowances/close", "gateway", close).status_code == 200
    market.settle()
    assert client.read("/api/v1/statement?month=2026-11", "factory")["self_paid_fen"] == 3
    assert client.call("GET", "/api/v1/statement.csv", "factory").content_type.startswith("text/csv")
    assert client.read("/api/v1/usage", "factory")["items"][0]["request_id"] == "req-1"


def test_an_empty_account_is_a_refusal_of_the_contract(client: Client) -> None:
    market = client.market
    wanted = contract.AllowanceRequest("gw", 1, "k", market.owner("factory"), None, market.call_price, 1)
    answer = client.call("POST", "/internal/v1/allowances", "gateway", contract.encode(wanted))
    assert answer.status_code == 402
    assert contract.decode(contract.AllowanceRefusal, answer.json).code == "insufficient_funds"


def test_internal_addresses_want_their_own_token_and_sound_messages(client: Client) -> None:
    witness = contract.encode(contract.WitnessBatch((contract.Witness("rep", 1, 1, "req-1", 0, 10, 5, 10, 0),)))
    assert client.call("POST", "/internal/v1/witness", "pool", witness).status_code == 200
    assert client.call("POST", "/internal/v1/witness", "pool", witness).status_code == 200
    assert client.call("POST", "/internal/v1/witness", "gateway", witness).status_code == 401
    for path in ("allowances", "allowances/close", "usage"):
        assert client.call("POST", f"/internal/v1/{path}", "operator", witness).status_code == 401
        answer = client.call("POST", f"/internal/v1/{path}", "gateway", witness)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_value")


def test_the_operator_finds_and_closes_a_lost_gateways_allowance(client: Client) -> None:
    client.market.fund("factory", 10_000, "bank-1")
    piece = client.market.draw("a")
    assert isinstance(piece, contract.AllowanceGrant)
    path = f"/api/v1/allowances/{piece.allowance_id}/close"
    body = {"reason": "host burnt"}
    early = client.call("POST", path, "operator", body)
    assert (early.status_code, early.json["code"]) == (409, "allowance_in_use")
    client.market.now += timedelta(minutes=3)
    assert [item["id"] for item in client.read("/api/v1/allowances", "operator")["items"]] == [piece.allowance_id]
    assert client.call("POST", path, "factory", body).status_code == 403
    answer = client.call("POST", path, "operator", body)
    assert (answer.status_code, answer.json["state"]) == (200, "closed")
    assert client.read("/api/v1/allowances", "operator")["items"] == []


def test_engine_counts_are_shown_beside_what_was_billed(client: Client) -> None:
    witness = contract.Witness("rep_1", 1, 1, "pool-1", 0, 256, 1, 256, 0, None, None, None)
    with client.market.sessions.write() as session:
        take_witness(session, contract.WitnessBatch((witness,), ()), client.market.now)
    [engine] = client.read("/api/v1/usage/engines", "auditor")["items"]
    assert (engine["own"], engine["billed"], engine["drift"], engine["alarms"]) == (1, 0, None, [])
    assert client.call("GET", "/api/v1/usage/engines", "factory").json["code"] == "forbidden"


def test_closed_months_are_listed_for_their_firm(client: Client) -> None:
    firm = client.market.owner("factory")
    with client.market.sessions.write() as session:
        actor, later = client.market.actors["operator"], client.market.now + timedelta(days=20)
        close_statement(session, actor, firm, "2026-11", now=later)
    listed = client.read("/api/v1/statements", "factory")["items"]
    assert [(row["organisation_id"], row["month"]) for row in listed] == [(firm, "2026-11")]
    for who in ("operator", "auditor"):
        assert client.read("/api/v1/statements", who)["items"] == listed
    assert client.read("/api/v1/statements", "rival")["items"] == []
    assert client.call("GET", f"/api/v1/statements?organisation_id={firm}", "rival").json["code"] == "not_found"


def test_a_statement_is_a_web_page_too(client: Client) -> None:
    page = client.call("GET", "/api/v1/statement.html?month=2026-11", "factory")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert page.headers["Content-Disposition"].endswith('"statement-2026-11.html"')
    assert page.text.startswith('<!doctype html>\n<html lang="en">')
