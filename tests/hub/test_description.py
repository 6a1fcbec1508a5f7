"""The described API: one name one shape, who may call, how a refusal looks; what is described is what happens."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hub.database import Sessions
from hub.description import OPEN
from hub.web import Body
from tests.hub.api_world import Api, open_api

MONEY = re.compile(
    "/api/v1/(allowances|audit|authority-reports|bill-lines|claim-lines|claims|corrections|deposits|earnings|grants"
    "|late-calls|ledger|meters|offers|orders|organisations/.*/owners|owners|papers|payouts|prices|programmes|providers"
    "|quotes|redemptions|related-parties|rentals|rules|splits|statements?|usage|voucher-applications|wallet)([./]|$)"
)
REF = re.compile(r'"#/components/schemas/([^"]+)"')


@pytest.fixture
def api(sessions: Sessions, tmp_path: Path, now: datetime) -> Api:
    return open_api(sessions, tmp_path, now)


@pytest.fixture
def described(api: Api) -> Any:
    return api.call("GET", "/api/openapi.json", None).json


def list_operations(described: Any) -> list[tuple[str, str, Any]]:
    return [(method, path, found) for path, item in described["paths"].items() for method, found in item.items()]


def list_money(described: Any) -> list[tuple[str, str, Any]]:
    """Return the operations of money."""
    return [found for found in list_operations(described) if MONEY.match(found[1])]


def test_no_two_bodies_share_a_name(api: Api) -> None:
    """The description keys shapes by class name: a second one would silently stand in the first one's place."""
    found, waiting = list[type](), [Body]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += below
        waiting += below
    names = [kind.__name__ for kind in found if kind.__module__.startswith("hub.")]
    assert len(names) > 60
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_route_of_the_api_is_described(api: Api, described: Any) -> None:
    """Two rooms share some paths: GET of one and POST of another."""
    known = {(method, path) for method, path, _ in list_operations(described)}
    routes = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/")
    }
    assert len(routes) > 180
    assert routes - known == set()


def test_every_operation_says_what_comes_back_and_how_it_refuses(described: Any) -> None:
    operations = list_operations(described)
    assert described["openapi"].startswith("3.1")
    assert len(operations) > 190
    for method, path, operation in operations:
        assert operation["summary"], (method, path)
        answers = operation["responses"]
        good = [status for status in answers if status.startswith("2")]
        assert good, (method, path)
        assert all("content" in answers[status] for status in good if status != "204"), (method, path)
        media = "application/json" if path.startswith("/v1/") else "application/problem+json"
        assert list(answers["default"]["content"]) == [media]


def test_every_reference_leads_to_a_shape(described: Any) -> None:
    named = set(REF.findall(json.dumps(described)))
    assert {
        "Problem",
        "Correction",
        "RedemptionRow",
        "OfferRow",
        "RentalView",
        "PayoutView",
        "Statement",
        "Items_OrderView",
    } <= named
    assert named <= set(described["components"]["schemas"])


def test_every_answer_of_money_is_described_field_by_field(described: Any) -> None:
    told = 0
    for method, path, operation in list_money(described):
        for status, answer in operation["responses"].items():
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            if status.startswith("2") and schema is not None:
                told += 1
                assert list_bare(schema, described["components"]["schemas"], f"{method} {path}") == []
    assert told > 100


def list_bare(schema: Any, schemas: Any, place: str) -> list[str]:
    """Return the places below a schema where an object is described without its fields."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return list_bare(schemas[name], schemas, f"{place} {name}")
    bare = schema.get("type") == "object" and not schema.get("properties")
    found = [place] if bare and not isinstance(schema.get("additionalProperties"), dict) else []
    below = [*schema.get("properties", {}).items(), *(("", one) for one in schema.get("anyOf", []))]
    if "items" in schema:
        below.append(("items", schema["items"]))
    for name, one in below:
        found += list_bare(one, schemas, f"{place}.{name}")
    return found


def test_who_may_call_is_described_as_it_is(api: Api, described: Any) -> None:
    """Reads only: what changes something is refused for its body before it is asked who sends it."""
    asked = 0
    for method, path, operation in list_operations(described):
        if method != "get":
            continue
        answer = api.call("GET", re.sub(r"{[^}]+}", "x", path), None)
        if answer.status_code == 422:
            continue
        asked += 1
        assert (answer.status_code != 401) == (operation["security"] == []), (path, answer.status_code)
    assert asked > 70
    assert {(method, path) for method, path, _ in list_operations(described)} >= OPEN


def test_a_refusal_has_the_described_shape(api: Api, described: Any) -> None:
    problem = described["components"]["schemas"]["Problem"]
    told = api.call("POST", "/api/v1/redemptions/red_x/reviews", json={"decision": "check", "extra": 1}).json
    assert set(problem["required"]) <= set(told) <= set(problem["properties"])


def test_each_decision_is_described_by_its_own_words(described: Any) -> None:
    for path, name in (
        ("/api/v1/corrections/{correction_id}/decision", "CorrectionDecisionBody"),
        ("/api/v1/redemptions/{redemption_id}/reviews", "RedemptionDecisionBody"),
        ("/api/v1/orders/{order_id}/corrections", "BillCorrectionBody"),
    ):
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["$ref"].endswith(f"/{name}")
    assert "metered" in described["components"]["schemas"]["BillCorrectionBody"]["properties"]
