"""People of an organisation and API keys: who may add whom, what a key is, what is stored of it."""

from datetime import timedelta

import pytest

from hub.errors import NotFoundError
from hub.organisations.service import create_key, find_actor_by_key, find_budget, revoke_key
from hub.organisations.tables import ApiKey
from serving.contract import Peppers, key_mac
from tests.hub.market.world import PASSWORD, World

PEPPER = b"pepper of the tests"
PEPPERS = Peppers(PEPPER)


def add_person(world: World, who: str, role: str, name: str = "second") -> tuple[int, dict[str, str]]:
    path = f"/organisations/{world.actors[who].organisation_id}/users"
    body = {"email": f"{name}@demo.example", "name": name, "password": PASSWORD, "role": role}
    answer = world.call("POST", path, who, json=body)
    assert answer.json is not None
    return answer.status_code, answer.json


def test_the_manager_adds_and_removes_people(world: World) -> None:
    status, person = add_person(world, "factory", "developer")
    assert (status, person["manages"]) == (201, False)
    opened = world.call("POST", "/sessions", json={"email": "second@demo.example", "password": PASSWORD}).json
    world.tokens["second"] = opened["token"]
    users = f"/organisations/{world.actors['factory'].organisation_id}/users"
    assert [row["name"] for row in world.call("GET", users, "second").json["users"]] == ["factory", "second"]
    other = {"email": "third@demo.example", "name": "third", "password": PASSWORD, "role": "factory"}
    assert world.call("POST", users, "second", json=other).status_code == 403
    assert world.call("DELETE", f"{users}/{person['id']}", "factory").status_code == 204
    assert world.call("GET", "/me", "second").status_code == 401
    assert world.call("DELETE", f"{users}/{person['id']}", "factory").status_code == 404


def test_the_manager_cannot_be_removed(world: World) -> None:
    own = world.actors["factory"]
    path = f"/organisations/{own.organisation_id}/users/{own.user_id}"
    assert world.call("DELETE", path, "factory").status_code == 409


@pytest.mark.parametrize(("who", "role"), [("factory", "operator"), ("factory", "auditor"), ("operator", "factory")])
def test_roles_must_fit_the_kind_of_organisation(world: World, who: str, role: str) -> None:
    status, body = add_person(world, who, role)
    assert (status, body["code"]) == (422, "bad_role")


def test_a_key_is_shown_once_and_kept_as_mac(world: World) -> None:
    body = {"name": "line 3", "models": ["factory-co/orders"], "rpm": 60, "budget_fen": 5_000, "cost_centre": "CC-7"}
    made = world.call("POST", "/keys", "factory", json=body)
    assert made.status_code == 201
    key = made.json["key"]
    assert key.startswith(f"gm_{made.json['id'].removeprefix('key_')}_")
    assert len(key.rsplit("_", 1)[0]) < len(key)
    [listed] = world.call("GET", "/keys", "factory").json["keys"]
    assert "key" not in listed
    assert (listed["last4"], listed["rpm"], listed["cost_centre"]) == (key[-4:], 60, "CC-7")
    with world.sessions.read() as session:
        row = session.get_one(ApiKey, made.json["id"])
        assert row.mac == key_mac(PEPPER, key)
        assert find_budget(session, str(row.budget_id)).limit_fen == 5_000
        actor = find_actor_by_key(session, key, PEPPERS, world.now)
        assert actor == world.actors["factory"]


def test_keys_end_by_revocation_and_by_time(world: World) -> None:
    expires_at = (world.now + timedelta(hours=1)).isoformat()
    made = world.call("POST", "/keys", "factory", json={"name": "short", "expires_at": expires_at}).json
    with world.sessions.read() as session:
        assert find_actor_by_key(session, made["key"], PEPPERS, world.now) is not None
        assert find_actor_by_key(session, made["key"], PEPPERS, world.now + timedelta(hours=1)) is None
        assert find_actor_by_key(session, made["key"] + " ", PEPPERS, world.now) is None
        assert find_actor_by_key(session, made["key"][:-1] + "~", PEPPERS, world.now) is None
        assert find_actor_by_key(session, made["key"], Peppers(b"other pepper"), world.now) is None
    assert world.call("DELETE", f"/keys/{made['id']}", "factory").json["revoked_at"] is not None
    with world.sessions.read() as session:
        assert find_actor_by_key(session, made["key"], PEPPERS, world.now) is None


def test_another_firms_key_is_not_found_and_lives(world: World) -> None:
    made = world.call("POST", "/keys", "factory", json={"name": "mine"}).json
    assert world.call("DELETE", f"/keys/{made['id']}", "rival").status_code == 404
    assert world.call("GET", "/keys", "rival").json["keys"] == []
    with world.sessions.write() as session, pytest.raises(NotFoundError):
        revoke_key(session, world.actors["operator"], made["id"], now=world.now)
    assert world.call("GET", "/keys", "factory").json["keys"][0]["revoked_at"] is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"expires_at": "2020-01-01T00:00:00+00:00"}, "expires_at"),
        ({"ip_ranges": ["not-an-address"]}, "ip_ranges"),
        ({"rpm": 0}, None),
        ({"rpm": 2**63}, None),
        ({"rpm": True}, None),
        ({"budget_fen": 1.5}, None),
        ({"expires_at": "2030-01-01T00:00:00"}, None),
        ({"mac": "0" * 64}, None),
        ({"organisation_id": "org_1"}, None),
    ],
)
def test_bad_limits_are_refused(world: World, change: dict[str, object], field: str | None) -> None:
    answer = world.call("POST", "/keys", "factory", json={"name": "k", **change})
    assert answer.status_code == 422
    assert answer.json.get("field") == field
    assert world.call("GET", "/keys", "factory").json["keys"] == []


def test_a_hundred_keys_are_enough(world: World) -> None:
    with world.sessions.write() as session:
        for number in range(100):
            create_key(session, world.actors["factory"], name=f"{number}", pepper=PEPPER, pepper_id="p", now=world.now)
    answer = world.call("POST", "/keys", "factory", json={"name": "one more"})
    assert (answer.status_code, answer.json["limit"]) == (409, 100)


def test_an_auditor_has_no_key(world: World) -> None:
    assert world.call("POST", "/keys", "auditor", json={"name": "k"}).status_code == 403
