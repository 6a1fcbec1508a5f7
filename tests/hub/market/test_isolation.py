"""Tenant isolation: another firm's things answer exactly like things that do not exist, on every address here."""

from typing import Any

import pytest

from hub.catalogue.tables import Block, Model, ModelVersion, Review
from hub.organisations.tables import ApiKey, User, UserState
from tests.hub.market.world import World, count

NO_BODY: dict[str, Any] = {}
REASON = {"reason": "because"}
STOP = {"reason_en": "stop", "reason_zh": "停"}
PRICES = {"prompt": {"amount_fen": 1, "per_units": 1}, "completion": {"amount_fen": 1, "per_units": 1}}
PERSON = {"email": "x@demo.example", "name": "x", "password": "long-enough-9", "role": "factory"}
FLAGS = {"two_high_evidence": None, "manufacturing_base_evidence": None}
# method, address with {its own placeholder}, body: things that belong to one firm
OWNED = [
    ("GET", "/organisations/{organisation}/users", None),
    ("POST", "/organisations/{organisation}/users", PERSON),
    ("DELETE", "/organisations/{organisation}/users/{user}", None),
    ("DELETE", "/keys/{key}", None),
    ("GET", "/models/{model}", None),
    ("GET", "/models/{model}@1", None),
    ("GET", "/models/{model}/versions", None),
    ("GET", "/versions/{version}", None),
    ("POST", "/versions/{version}/submit", None),
    ("POST", "/versions/{version}/listing", {"prices": PRICES}),
    ("PUT", "/versions/{version}/access", {"visibility": "public"}),
    ("POST", "/versions/{version}/retire", NO_BODY),
    ("GET", "/uploads/{upload}", None),
]
# what only an operator may do, whoever owns the thing
OPERATED = [
    ("GET", "/organisations", None),
    ("POST", "/organisations/{organisation}/verify", None),
    ("POST", "/organisations/{organisation}/suspend", REASON),
    ("POST", "/filings/{filing}/withdraw", REASON),
    ("GET", "/filings/{filing}/evidence", None),
    ("POST", "/bases/import", {"path": "/nowhere", "name": "b"}),
    ("POST", "/versions/{version}/reviews", {"decision": "approve", "reason": "x", "ruling": "not_applicable"}),
    ("POST", "/versions/{version}/quarantine", STOP),
    ("POST", "/versions/{version}/release", REASON),
    ("PUT", "/versions/{version}/flags", FLAGS),
    ("PUT", "/taxonomy/industry/chain-a1", {"title_zh": "x", "title_en": "x"}),
]
MISSING = {
    "organisation": "org_0",
    "user": "usr_0",
    "key": "key_0",
    "model": "integrator-co/nothing",
    "version": "ver_0",
    "upload": "upl_0",
}


@pytest.fixture
def things(world: World) -> dict[str, str]:
    """One thing of each noun, all the integrator's and private."""
    base = world.add_base()
    owner = world.actors["integrator"]
    version = world.add_adapter(base)
    key = world.call("POST", "/keys", "integrator", json={"name": "mine"}).json["id"]
    refused = world.upload("integrator", {"name": "bad", "base": "operator-co/base"}, [("run.py", b"import os")]).json[
        "upload_id"
    ]
    return {
        "organisation": owner.organisation_id,
        "user": owner.user_id,
        "key": key,
        "model": "integrator-co/orders",
        "version": version.id,
        "upload": refused,
        "filing": world.add_filing(base).id,
    }


def ask(world: World, method: str, path: str, who: str | None, body: Any) -> tuple[int, dict[str, Any]]:
    answer = world.call(method, path, who, json=body) if body is not None else world.call(method, path, who)
    problem = dict(answer.json or {})
    problem.pop("request_id", None)
    return answer.status_code, problem


def snapshot(world: World) -> list[Any]:
    with world.sessions.read() as session:
        version = session.query(ModelVersion).filter(ModelVersion.kind == "adapter").one()
        model = session.get_one(Model, version.model_id)
        key = session.query(ApiKey).one()
        active = session.query(User).filter(User.state == UserState.ACTIVE).count()
        return [version.state, version.price_version_id, version.retires_at, model.visibility, key.revoked_at, active]


@pytest.mark.parametrize("who", ["rival", "factory", "developer"])
def test_another_firms_thing_answers_like_a_missing_one(world: World, things: dict[str, str], who: str) -> None:
    before = snapshot(world)
    for method, path, body in OWNED:
        foreign = ask(world, method, path.format(**things), who, body)
        missing = ask(world, method, path.format(**MISSING), who, body)
        assert foreign[0] == missing[0] == 404, (method, path, foreign)
        for key, value in MISSING.items():
            foreign[1]["detail"] = foreign[1]["detail"].replace(things[key], "X")
            missing[1]["detail"] = missing[1]["detail"].replace(value, "X")
        assert foreign[1]["detail"].replace("@1", "") == missing[1]["detail"].replace("@1", ""), (method, path)
        assert foreign[1]["code"] == missing[1]["code"] == "not_found"
    assert snapshot(world) == before


@pytest.mark.parametrize("who", ["integrator", "rival", "factory", "developer"])
def test_the_operators_steps_are_the_operators(world: World, things: dict[str, str], who: str) -> None:
    for method, path, body in OPERATED:
        status, problem = ask(world, method, path.format(**things), who, body)
        assert (status, problem["code"]) == (403, "forbidden"), (method, path)
    assert count(world, Review) == count(world, Block) == 0


def test_an_auditor_writes_nothing(world: World, things: dict[str, str]) -> None:
    before = snapshot(world)
    written = [item for item in [*OWNED, *OPERATED] if item[0] != "GET"]
    assert len(written) > 12
    for method, path, body in written:
        status, _ = ask(world, method, path.format(**things), "auditor", body)
        assert status in (403, 404), (method, path)
    assert snapshot(world) == before


def test_strangers_sign_in_first(world: World, things: dict[str, str]) -> None:
    public = {"/models/{model}", "/models/{model}@1", "/models/{model}/versions", "/versions/{version}"}
    for method, path, body in [*OWNED, *OPERATED]:
        status, problem = ask(world, method, path.format(**things), None, body)
        expected = (404, "not_found") if path in public else (401, "not_signed_in")
        assert (status, problem["code"]) == expected, (method, path)


def test_lists_show_only_the_own_things(world: World, things: dict[str, str]) -> None:
    for who in ("rival", "factory", "developer"):
        assert world.call("GET", "/keys", who).json["keys"] == []
        assert world.call("GET", "/uploads", who).json["uploads"] == []
        assert world.call("GET", "/versions?state=private", who).json["versions"] == []
        shown = world.call("GET", "/models/operator-co/base", who).json
        assert shown["derivatives"] == []
    assert [row["id"] for row in world.call("GET", "/versions?state=private", "integrator").json["versions"]] == [
        things["version"]
    ]


def test_every_address_of_these_rooms_is_in_a_matrix(world: World) -> None:
    here = ("/api/v1/organisations", "/api/v1/keys", "/api/v1/models", "/api/v1/versions", "/api/v1/uploads")
    open_to_all = {
        "POST /organisations", "GET /keys", "POST /keys", "GET /models", "GET /versions", "GET /uploads",
        "POST /versions/<version_id>/derivative",
    }  # fmt: skip
    names = {"model": "<organisation>/<name>"} | {key: f"<{key}_id>" for key in MISSING if key != "model"}
    covered = {f"{method} {path.format(**names, filing='<filing_id>')}" for method, path, _ in [*OWNED, *OPERATED]}
    routes = {
        f"{method} {rule.rule.removeprefix('/api/v1')}"
        for rule in world.app.url_map.iter_rules()
        if rule.rule.startswith(here)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert len(routes) > 20
    assert routes - covered - open_to_all == set()
