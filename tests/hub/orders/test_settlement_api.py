"""Rentals, corrections and payouts over HTTP: who may do what, what is refused by which rule, OpenAPI 3.1."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from hub.actor import Role
from hub.app import create_api
from hub.compute.meter_rules import Report, sign_report
from hub.ledger.audit import check_books
from hub.ledger.tables import Transfer
from hub.organisations.service import create_user, sign_in
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from tests.described import watch_answers
from tests.hub.money.market import PASSWORD, Market
from tests.hub.orders.test_rentals import HOUR_MS, Shop

SECRETS = Secrets({name: f"{name} of the tests" for name in NAMES})
ROOMS = ("organisations", "ledger", "prices", "compute", "vouchers", "metering", "orders", "payouts", "reports")


class Api:
    """The money rooms as outside clients see them; the clock may be moved."""

    def __init__(self, market: Market, shop: Shop, client: FlaskClient) -> None:
        self.market, self.shop, self.client = market, shop, client
        self.now = market.now

    def call(self, method: str, path: str, who: str, body: dict[str, Any] | None = None) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.market.tokens[who]}", "Accept-Language": "en"}
        return self.client.open(f"/api/v1{path}", method=method, headers=headers, json=body)

    def done(self, method: str, path: str, who: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.call(method, path, who, body)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json


@pytest.fixture
def api(rich: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr("hub.app.ROOMS", ROOMS)
    made: list[Api] = []
    app = create_api(
        Settings(home=tmp_path, database_url=""),
        secrets=SECRETS,
        sessions=rich.sessions,
        clock=lambda: made[0].now,
    )
    made.append(Api(rich, Shop(rich), watch_answers(app).test_client()))
    return made[0]


def rent(api: Api, key: str = "r-1") -> str:
    body = {"offer_id": api.shop.offer.id, "device_ms": HOUR_MS, "idempotency_key": key}
    found: str = api.done("POST", "/rentals", "factory", body)["id"]
    return found


def report(api: Api, rental: str, seq: int, device_ms: int, *, key: str, device: str = "gpu-0") -> Any:
    plain = Report(rental, seq, device, device_ms, api.now, "")
    signed = replace(plain, signature=sign_report(key, plain))
    body = {
        "seq": seq,
        "device_id": device,
        "device_ms": device_ms,
        "observed_at": api.now.isoformat(),
        "signature": signed.signature,
    }
    return api.done("POST", f"/rentals/{rental}/meters", "provider", body)


def test_a_rental_from_estimate_to_payout(api: Api) -> None:
    estimate = api.done("GET", f"/offers/{api.shop.offer.id}/estimate?device_ms={HOUR_MS}", "factory")
    assert (estimate["list_fen"], estimate["voucher_fen"], estimate["self_paid_fen"]) == (1201, 600, 601)
    rental = rent(api)
    assert rent(api) == rental
    key = api.done("POST", f"/providers/{api.shop.provider_id}/meter-key", "provider")["key"]
    api.now += timedelta(minutes=30)
    assert report(api, rental, 1, 1_800_000, key=key)["state"] == "accepted"
    doubtful = report(api, rental, 2, 9_000_000, key=key)
    assert (doubtful["state"], doubtful["rule"]) == ("quarantined", "more_than_elapsed")
    listed = api.done("GET", "/meters?state=quarantined", "operator")["items"]
    assert [item["id"] for item in listed] == [doubtful["id"]]
    decision = {"decision": "reject", "reason": "not possible"}
    assert api.call("POST", f"/meters/{doubtful['id']}/decision", "provider", decision).status_code == 403
    assert api.done("POST", f"/meters/{doubtful['id']}/decision", "operator", decision)["state"] == "rejected"
    more = {"device_ms": HOUR_MS, "idempotency_key": "more"}
    assert api.done("POST", f"/rentals/{rental}/extend", "factory", more)["limit_ms"] == 2 * HOUR_MS
    assert api.done("POST", f"/rentals/{rental}/end", "factory")["state"] == "released"
    shown = api.done("GET", f"/rentals/{rental}", "factory")
    assert [order["charged_fen"] for order in shown["orders"]] == [600, 0]
    earned = api.done("GET", "/earnings", "provider")
    assert [(item["party"], item["amount_fen"]) for item in earned["items"] if item["amount_fen"]] == [("seller", 600)]
    assert api.done("GET", "/payouts", "provider")["available_fen"] == 600
    payout = api.done("POST", "/payouts", "provider", {"amount_fen": 600, "idempotency_key": "p"})["id"]
    api.done("POST", f"/payouts/{payout}/send", "operator")
    paid = api.done("POST", f"/payouts/{payout}/result", "operator", {"result": "paid", "bank_reference": "B"})
    assert [step["state"] for step in paid["steps"]] == ["requested", "in_payout", "paid"]
    assert api.done("GET", "/payouts", "provider")["available_fen"] == 0


def test_a_correction_is_read_by_its_firm_only(api: Api) -> None:
    rental = rent(api)
    key = api.done("POST", f"/providers/{api.shop.provider_id}/meter-key", "provider")["key"]
    api.now += timedelta(minutes=30)
    report(api, rental, 1, 1_800_000, key=key)
    order = api.done("POST", f"/rentals/{rental}/end", "factory")["order_id"]
    path = f"/orders/{order}/corrections"
    made = api.done("POST", path, "operator", {"reason": "stood still", "fault": "provider"})
    assert (made["number"], made["fee_fen"], made["voucher_fen"], made["self_paid_fen"]) == (2, -600, -300, -300)
    assert [item["id"] for item in api.done("GET", path, "factory")["items"]] == [made["id"]]
    assert api.call("GET", path, "rival").status_code == 404
    assert api.call("GET", "/corrections", "factory").status_code == 403
    assert [item["id"] for item in api.done("GET", "/corrections?state=posted", "auditor")["items"]] == [made["id"]]
    assert api.call("GET", "/corrections?state=odd", "auditor").json["code"] == "invalid_value"


BAD_FIGURES = (0, -1, 1.5, 2**63, "60000", None, True)


@pytest.mark.parametrize("figure", BAD_FIGURES)
def test_figures_that_are_none_are_refused_everywhere_and_the_ledger_stays(api: Api, figure: object) -> None:
    rental = rent(api)
    before = count_transfers(api)
    calls = (
        ("/rentals", "factory", {"offer_id": api.shop.offer.id, "device_ms": figure, "idempotency_key": "x"}),
        (f"/rentals/{rental}/extend", "factory", {"device_ms": figure, "idempotency_key": "y"}),
        ("/payouts", "provider", {"amount_fen": figure, "idempotency_key": "z"}),
        (
            f"/rentals/{rental}/meters",
            "provider",
            {"seq": figure, "device_id": "g", "device_ms": 1, "observed_at": api.now.isoformat(), "signature": ""},
        ),
    )
    for path, who, body in calls:
        answer = api.call("POST", path, who, body)
        assert answer.status_code in (400, 422), (path, answer.text)
        assert answer.json["code"] in ("invalid_value", "rental_time", "bad_payout", "bad_meter")
    assert count_transfers(api) == before


def count_transfers(api: Api) -> int:
    with api.market.sessions.read() as session:
        assert check_books(session) == []
        return session.scalar(select(func.count()).select_from(Transfer)) or 0


def test_the_description_is_openapi_3_1_and_names_every_endpoint(api: Api) -> None:
    described = api.client.get("/api/openapi.json").json
    assert described["openapi"].startswith("3.1")
    for path in (
        "/api/v1/rentals/{rental_id}/extend",
        "/api/v1/orders/{order_id}/corrections",
        "/api/v1/meters/{record_id}/decision",
        "/api/v1/payouts/{payout_id}/result",
        "/api/v1/statement/lines/{line_id}/records",
    ):
        assert path in described["paths"], path


def test_a_key_of_renting_or_extending_is_good_for_that_request_only(api: Api) -> None:
    one, two = rent(api), rent(api, "r-2")
    more = {"device_ms": HOUR_MS, "idempotency_key": "more"}
    extended = api.done("POST", f"/rentals/{one}/extend", "factory", more)
    before = count_transfers(api), read_limits(api, one, two)
    again = {"offer_id": api.shop.offer.id, "device_ms": HOUR_MS, "idempotency_key": "more"}
    calls = (
        ("/rentals", again),
        (f"/rentals/{two}/extend", more),
        (f"/rentals/{one}/extend", more | {"device_ms": 2 * HOUR_MS}),
        (f"/rentals/{one}/extend", more | {"idempotency_key": "r-1"}),
        (f"/rentals/{two}/extend", more | {"idempotency_key": "r-1"}),
    )
    for path, body in calls:
        answer = api.call("POST", path, "factory", body)
        assert (answer.status_code, answer.json["code"]) == (409, "idempotency_conflict"), (path, answer.text)
    assert (rent(api), rent(api, "r-2")) == (one, two)
    assert api.done("POST", f"/rentals/{one}/extend", "factory", more) == extended
    assert (count_transfers(api), read_limits(api, one, two)) == before
    assert before[1] == [2 * HOUR_MS, HOUR_MS]


def read_limits(api: Api, *rentals: str) -> list[int]:
    return [api.done("GET", f"/rentals/{rental}", "factory")["limit_ms"] for rental in rentals]


def add_person(api: Api, who: str, firm: str, role: Role) -> None:
    email = f"{who}@demo.example"
    with api.market.sessions.write() as session:
        create_user(
            session,
            organisation_id=api.market.owner(firm),
            email=email,
            name=who,
            password=PASSWORD,
            role=role,
            now=api.now,
        )
        token = sign_in(session, email=email, password=PASSWORD, now=api.now).token
    api.market.tokens = {**api.market.tokens, who: token}


@pytest.mark.parametrize("role", [Role.FACTORY, Role.DEVELOPER, Role.INTEGRATOR, Role.PROVIDER])
def test_a_rentals_orders_are_the_paying_firms_whatever_role_a_person_has(api: Api, role: Role) -> None:
    rental = rent(api)
    add_person(api, "theirs", "provider", role)
    add_person(api, "ours", "factory", role)
    seen = {who: api.done("GET", f"/rentals/{rental}", who) for who in ("theirs", "ours", "provider", "auditor")}
    assert {who: len(found["orders"]) for who, found in seen.items()} == {
        "theirs": 0,
        "ours": 1,
        "provider": 0,
        "auditor": 1,
    }
    assert {found["limit_ms"] for found in seen.values()} == {HOUR_MS}
    assert api.call("GET", f"/rentals/{rental}", "rival").status_code == 404
