"""Hostile input on every body: unknown fields, wrong types, hidden characters, length, depth. Never a 5xx."""

import json
from typing import Any

import pytest

from hub.organisations.rules import make_demo_uscc
from tests.hub.market.world import World

BODIES: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("POST", "/organisations", None, {
        "name": "n", "uscc": make_demo_uscc(900), "kind": "factory",
        "user": {"email": "a@b.example", "name": "n", "password": "long-enough-9"},
    }),
    ("POST", "/sessions", None, {"email": "a@b.example", "password": "long-enough-9"}),
    ("PATCH", "/me", "factory", {"language": "en"}),
    ("POST", "/keys", "factory", {"name": "k"}),
    ("POST", "/filings/fil_0/withdraw", "operator", {"reason": "r"}),
    ("POST", "/bases/import", "operator", {"path": "/nowhere", "name": "b"}),
    ("POST", "/versions/ver_0/reviews", "operator", {"decision": "reject", "reason": "r"}),
    ("POST", "/versions/ver_0/derivative", "operator", {"ruling": "filed", "reason": "r", "number": "n"}),
    ("POST", "/versions/ver_0/listing", "integrator", {"prices": {}}),
    ("PUT", "/versions/ver_0/access", "integrator", {"visibility": "public"}),
    ("PUT", "/versions/ver_0/flags", "operator", {"two_high_evidence": None, "manufacturing_base_evidence": None}),
    ("POST", "/versions/ver_0/quarantine", "operator", {"reason_en": "r", "reason_zh": "r"}),
    ("POST", "/versions/ver_0/release", "operator", {"reason": "r"}),
    ("POST", "/versions/ver_0/retire", "integrator", {}),
    ("PUT", "/taxonomy/industry/chain-a1", "operator", {"title_zh": "t", "title_en": "t"}),
]  # fmt: skip
BAD_VALUES: list[Any] = [
    True, 1, -1, 2**63, 2**64, 1.5, [], [1], {}, {"a": 1}, "", "x" * 10_000, "a\x00b", "a\u202eb", "\u200b", "\ud800",
]  # fmt: skip
RAW = [
    b"", b"null", b'"text"', b"[]", b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"a":' * 3_000, b"[" * 100_000,
    b'{"reason": NaN}', b'{"reason": 1e400}', b'{"limit": ' + b"9" * 5_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "who", "body"), BODIES, ids=[f"{item[0]} {item[1]}" for item in BODIES])
def test_no_body_breaks_the_server(world: World, method: str, path: str, who: str | None, body: dict[str, Any]) -> None:
    for extra in ("status", "organisation_id", "verified_at", "price_fen", "role"):
        answer = world.call(method, path, who, json={**body, extra: "x"})
        assert answer.status_code == 422, (extra, answer.json)
    for name in body:
        for value in BAD_VALUES:
            answer = world.call(
                method, path, who, data=json.dumps({**body, name: value}), content_type="application/json"
            )
            assert answer.status_code < 500, (name, value)
            assert "Traceback" not in answer.text
            assert "/work/" not in answer.text
    for raw in RAW:
        answer = world.call(method, path, who, data=raw, content_type="application/json")
        assert answer.status_code < 500, raw[:40]
    assert world.call(method, path, who, data=b"{}", content_type="text/plain").status_code < 500


def test_names_with_hidden_characters_are_refused(world: World) -> None:
    for text in ("a\x00b", "a\u202eb", "a\u200bb", "x" * 201, "a\nb", ""):
        answer = world.call("POST", "/keys", "factory", json={"name": text})
        assert answer.status_code == 422, text
        assert answer.json["errors"][0]["pointer"] == "/name"


ADDRESSES = [
    "/models/a/b@0", "/models/a/b@99999999999999999999", "/models/A/B", "/models/../keys", "/models/%00/x",
    "/models/x/ver_1", "/versions/%00", "/versions/" + "x" * 5_000, "/versions?state=gone", "/uploads/%F0%9F%98%80",
    "/filings/standing/xyz", "/filings?weights_digest=1", "/models?cursor=" + "A" * 5_000,
]  # fmt: skip


def test_no_address_breaks_the_server(world: World) -> None:
    for path in ADDRESSES:
        answer = world.call("GET", path, "factory")
        assert 400 <= answer.status_code < 500, path


@pytest.mark.parametrize(
    ("email", "password"),
    [("x" * 1_001, "p"), ("\x00", "\x00"), ("a@b.example", "p" * 999_999), ("a@b.example", "\ud800" * 9), ("", "")],
)
def test_no_credentials_break_the_server(world: World, email: str, password: str) -> None:
    body = json.dumps({"email": email, "password": password})
    answer = world.call("POST", "/sessions", data=body, content_type="application/json")
    assert answer.status_code in (400, 401, 422)


def test_full_width_digits_are_the_same_password(world: World) -> None:
    answer = world.call("POST", "/sessions", json={"email": "factory@demo.example", "password": "open-sesame-４２"})
    assert answer.status_code == 201


def test_the_api_describes_itself(world: World) -> None:
    described = world.app.test_client().get("/api/openapi.json").json
    paths = [path for path in described["paths"] if path.startswith("/api/v1")]
    assert len(paths) > 25
    mine = ("/api/v1/organisations", "/api/v1/models", "/api/v1/versions", "/api/v1/keys", "/api/v1/filings")
    for path in paths:
        if path.startswith(mine):
            assert all(0 < len(step["summary"]) <= 80 for step in described["paths"][path].values())
