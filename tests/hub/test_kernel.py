"""The hub's edge: strict JSON, problem+json for every refusal, a request id everywhere; rooms have their own tests."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from hub.database import Sessions
from hub.organisations.tables import ApiKey
from hub.web import Body, current_actor
from marketplace_ui.app import create_app
from tests.hub.api_world import Api, open_api

HOSTILE_BODIES = {
    "nested 33 deep": b'{"name": ' + b"[" * 33 + b"]" * 33 + b"}",
    "nested 100,000 deep": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"budget_fen": NaN}',
    "infinite": b'{"budget_fen": -Infinity}',
    "float out of range": b'{"budget_fen": 1e999}',
    "duplicate key": b'{"name": "a", "name": "b"}',
    "duplicate key within": b'{"name": "a", "extra": {"x": 1, "x": 2}}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "5,000 digits": b'{"name": "a", "budget_fen": ' + b"9" * 5000 + b"}",
    "JSON in a string": b'"{\\"name\\": \\"sneaked past the parser\\", \\"name\\": NaN}"',
    "list": b'[{"name": "a"}]',
    "null": b"null",
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "cut off": b'{"name": "a"',
    "nothing": b"",
}
UNKEEPABLE = {
    "whole number beyond 64 bits": b'{"name": "a", "budget_fen": 9223372036854775808}',
    "NUL in a value": b'{"name": "a\\u0000b"}',
    "NUL in a key": b'{"na\\u0000me": "a"}',
}
PROBLEM = {"type", "title", "status", "code", "request_id"}


@pytest.fixture
def api(sessions: Sessions, tmp_path: Path, now: datetime) -> Api:
    return open_api(sessions, tmp_path / "home", now)


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES.keys())
def test_body_with_two_meanings_is_refused_and_writes_nothing(api: Api, sessions: Sessions, body: bytes) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert read_problem(answer)["code"] == "invalid_json"
    assert len(read_problem(answer)["detail"]) > 20
    with sessions.read() as session:
        assert session.scalars(select(ApiKey)).all() == []


@pytest.mark.parametrize("body", UNKEEPABLE.values(), ids=UNKEEPABLE.keys())
def test_value_that_no_database_keeps_is_refused(api: Api, sessions: Sessions, body: bytes) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", data=body, content_type="application/json")
    assert answer.status_code == 422
    assert read_problem(answer)["code"] == "invalid_value"
    with sessions.read() as session:
        assert session.scalars(select(ApiKey)).all() == []


def test_same_body_as_proper_json_is_accepted(api: Api) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", json={"name": "line 3 产线", "budget_fen": 10**15})
    assert answer.status_code == 201
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_other_content_type_is_refused_by_name(api: Api, content_type: str) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", data=b'{"name": "a"}', content_type=content_type)
    assert answer.status_code == 415
    problem = read_problem(answer)
    assert problem["code"] == "wrong_content_type"
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize("path", ["/api/v1/models?text=a%00b", "/api/v1/runs/run_%00", "/api/v1/models?a%00=b"])
def test_nul_in_an_address_is_refused(api: Api, path: str) -> None:
    answer = api.call("GET", path)
    assert answer.status_code == 422
    assert "U+0000" in read_problem(answer)["detail"]


def test_nul_in_a_form_is_refused(api: Api) -> None:
    answer = api.call("POST", "/api/v1/datasets", "factory", data={"name": "a\0b"})
    assert answer.status_code == 422
    assert "U+0000" in read_problem(answer)["detail"]


def test_every_field_error_of_a_body_is_told_at_once(api: Api) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", json={"rpm": "many", "unheard_of": 1})
    assert answer.status_code == 422
    pointers = {item["pointer"] for item in read_problem(answer)["errors"]}
    assert {"/name", "/rpm", "/unheard_of"} <= pointers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nowhere", 404, "not_found"),
        ("PUT", "/api/v1/keys", 405, "method_not_allowed"),
        ("GET", "/api/v1/runs/run_missing", 404, "not_found"),
        ("GET", "/internal/v1/snapshot", 401, "not_signed_in"),
        ("GET", "/api/v1/models?limit=many", 422, "invalid_value"),
    ],
)
def test_refusal_is_problem_json(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = api.call(method, path)
    problem = read_problem(answer)
    assert (answer.status_code, problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]


def test_wrong_method_names_the_right_ones(api: Api) -> None:
    assert {"GET", "POST"} <= set(api.call("PUT", "/api/v1/keys").headers["Allow"].replace(" ", "").split(","))


def test_pages_leave_problem_json_to_programs(sessions: Sessions, tmp_path: Path, now: datetime, api: Api) -> None:
    context = api.app.extensions["guanmo"]
    app = create_app(settings=context.settings, secrets=context.secrets, sessions=sessions, clock=lambda: now)
    client = app.test_client()
    for method, path, status in (("GET", "/api/v1/nowhere", 404), ("PUT", "/api/v1/keys", 405)):
        answer = client.open(path, method=method, headers={"Accept": "text/html"})
        assert answer.status_code == status
        assert read_problem(answer)["status"] == status
    page = client.get("/nowhere", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert page.mimetype == "text/html"
    assert page.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
def test_body_beyond_the_limit_is_refused_with_the_limit(api: Api, content_type: str) -> None:
    api.app.config["MAX_CONTENT_LENGTH"] = 2_000
    path = "/api/v1/keys" if content_type == "application/json" else "/api/v1/datasets"
    answer = api.call("POST", path, "factory", data=b"x" * 2_001, content_type=content_type)
    assert answer.status_code == 413
    problem = read_problem(answer)
    assert problem["code"] == "request_entity_too_large"
    assert "2000 bytes" in problem["detail"]


def test_json_has_a_lower_limit_than_files(api: Api) -> None:
    answer = api.call("POST", "/api/v1/keys", "factory", data=b" " * (8 * 1024 * 1024 + 1), content_type="text/json")
    assert answer.status_code == 415
    huge = b" " * (8 * 1024 * 1024 + 1)
    answer = api.call("POST", "/api/v1/keys", "factory", data=huge, content_type="application/json")
    assert answer.status_code == 413


def test_unexpected_error_tells_only_the_request_id(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    @api.app.get("/api/v1/broken", doc_ui=False)
    def break_down() -> None:
        raise ZeroDivisionError("secret detail")

    answer = api.call("GET", "/api/v1/broken")
    problem = read_problem(answer)
    assert answer.status_code == 500
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert problem["request_id"] in caplog.text
    assert "secret detail" in caplog.text


def test_who_asks_is_read_once_and_a_stranger_is_told_how_to_sign_in(api: Api) -> None:
    answer = api.call("GET", "/api/v1/me", None)
    assert answer.status_code == 401
    assert "POST /api/v1/sessions" in read_problem(answer)["detail"]
    with api.app.test_request_context(headers={"Authorization": f"Bearer {api.tokens['factory']}"}):
        assert current_actor() is current_actor()


def test_no_endpoint_breaks_on_bodies_of_the_right_shape_and_wild_values(api: Api) -> None:
    """Every JSON body of the published schema, filled with values at the edges of its types."""
    seen = {}
    for method, path, schema in list_bodies(api.app.api_doc):
        for number, wild in enumerate(WILD):
            who = "factory" if number == 0 else "operator"
            answer = api.call(method, path, who, json=fill(schema, wild, api.app.api_doc))
            seen[f"{method} {path} by {who} with {wild['string']:.12}"] = answer.status_code
    assert len(seen) > 80
    assert {place: status for place, status in seen.items() if status >= 500} == {}


def test_no_endpoint_breaks_on_wild_queries_and_paths(api: Api) -> None:
    seen = {}
    for path, names in list_queries(api.app.api_doc):
        for wild in ("9" * 30, "-1", "9223372036854775807", "%ED%A0%80", "a'\"%3B--", "2026-13", "0001-01-01"):
            query = "&".join(f"{name}={wild}" for name in names)
            answer = api.call("GET", f"{path.replace('{', '').replace('}', '')}?{query}")
            seen[f"{path}?{query}"] = answer.status_code
    assert len(seen) > 80
    assert {place: status for place, status in seen.items() if status >= 500} == {}


def test_an_openai_client_is_told_of_a_missing_route_in_its_own_words(api: Api) -> None:
    answer = api.call("POST", "/v1/fine_tuning/alpha", json={"model": "x"})
    assert answer.status_code == 404
    assert answer.get_json()["error"] == {
        "message": "there is no route POST /v1/fine_tuning/alpha",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }
    assert answer.headers["x-should-retry"] == "false"


def test_body_base_is_strict() -> None:
    class Sample(Body):
        count: int

    assert Sample.model_validate({"count": 3}).count == 3
    with pytest.raises(ValueError, match="valid integer"):
        Sample.model_validate({"count": "3"})


WILD: tuple[dict[str, Any], ...] = (
    {"integer": 2**63 - 1, "string": "x" * 5_000, "number": 1e308, "boolean": True},
    {"integer": -(2**63), "string": "", "number": -0.0, "boolean": False},
    {"integer": 0, "string": "\u202eሴ😀'\";--", "number": 5e-324, "boolean": True},
    {"integer": 1, "string": "9999-12-31T23:59:59+00:00", "number": 0.5, "boolean": True},
    {"integer": 1, "string": "0001-01-01T00:00:00+14:00", "number": 0.5, "boolean": True},
    {"integer": 1, "string": "2026-11-21", "number": 0.5, "boolean": True},
)


def fill(schema: dict[str, Any], wild: dict[str, Any], doc: dict[str, Any], depth: int = 0) -> Any:
    """Return a value of a JSON schema with wild leaves."""
    if "$ref" in schema:
        return fill(doc["components"]["schemas"][schema["$ref"].rpartition("/")[2]], wild, doc, depth + 1)
    for kind in ("anyOf", "allOf", "oneOf"):
        if kind in schema:
            return fill(schema[kind][0], wild, doc, depth + 1)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return [fill(item, wild, doc, depth + 1) for item in items] if depth < 8 else []
    if schema.get("type") == "object":
        members = {name: fill(item, wild, doc, depth + 1) for name, item in schema.get("properties", {}).items()}
        extra = schema.get("additionalProperties")
        return members | ({"prompt": fill(extra, wild, doc, depth + 1)} if isinstance(extra, dict) else {})
    return wild.get(schema.get("type", "string"))


def list_bodies(doc: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (method, path, schema) of every endpoint that takes JSON."""
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            found = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if found:
                yield method.upper(), path.replace("{", "").replace("}", ""), found["schema"]


def list_queries(doc: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield (path, names of its query) of every GET."""
    for path, methods in doc["paths"].items():
        if "get" in methods:
            given = methods["get"].get("parameters", [])
            yield path, [item["name"] for item in given if item["in"] == "query"]


def read_problem(answer: TestResponse) -> dict[str, Any]:
    """Return a refusal, having checked its shape. Source: RFC 9457."""
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = answer.get_json()
    assert problem.keys() >= PROBLEM
    assert problem["status"] == answer.status_code
    return problem
