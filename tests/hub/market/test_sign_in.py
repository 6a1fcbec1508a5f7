"""Sign-up, verification, sessions: what a person sees and what a guesser sees."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from hub.cli.operators import operators
from hub.organisations.rules import make_demo_uscc
from hub.organisations.service import NotVerifiedError, require_verified
from hub.organisations.tables import Organisation, OrganisationState, SignInSession, User
from tests.hub.market.test_second_person import join
from tests.hub.market.world import PASSWORD, World, count

SIGN_UP = {
    "name": "新厂 Newworks",
    "uscc": make_demo_uscc(500),
    "kind": "factory",
    "user": {"email": "Boss@Newworks.example", "name": "老板", "password": "long-enough-9"},
}


def sign_in(world: World, email: str, password: str) -> tuple[int, dict[str, object]]:
    answer = world.call("POST", "/sessions", json={"email": email, "password": password})
    assert answer.json is not None
    return answer.status_code, answer.json


def test_a_firm_signs_up_looks_around_and_is_verified(world: World) -> None:
    made = world.call("POST", "/organisations", json=SIGN_UP)
    assert made.status_code == 201
    organisation = made.json["organisation"]
    assert (organisation["slug"], organisation["state"], organisation["demo"]) == ("newworks", "pending", True)
    status, opened = sign_in(world, "boss@newworks.EXAMPLE", "long-enough-9")
    assert status == 201
    world.tokens["boss"] = str(opened["token"])
    me = world.call("GET", "/me", "boss").json
    assert (me["user"]["role"], me["user"]["manages"]) == ("factory", True)
    with world.sessions.read() as session, pytest.raises(NotVerifiedError, match="pending"):
        require_verified(session, organisation["id"])
    assert world.call("POST", f"/organisations/{organisation['id']}/verify", "boss").status_code == 403
    verified = world.call("POST", f"/organisations/{organisation['id']}/verify", "operator").json
    assert verified["state"] == "verified"
    with world.sessions.read() as session:
        assert require_verified(session, organisation["id"]).verified_by == world.actors["operator"].user_id


def test_a_second_sign_up_with_the_same_code_slug_or_address_changes_nothing(world: World) -> None:
    assert world.call("POST", "/organisations", json=SIGN_UP).status_code == 201
    people = count(world, User)
    same_code = world.call("POST", "/organisations", json=SIGN_UP | {"slug": "other"})
    assert (same_code.status_code, same_code.json["field"]) == (409, "uscc")
    same_slug = world.call("POST", "/organisations", json=SIGN_UP | {"uscc": make_demo_uscc(501)})
    assert (same_slug.status_code, same_slug.json["field"]) == (409, "slug")
    same_mail = world.call("POST", "/organisations", json=SIGN_UP | {"uscc": make_demo_uscc(501), "slug": "third"})
    assert (same_mail.status_code, same_mail.json["field"]) == (409, "email")
    assert count(world, User) == people


@pytest.mark.parametrize("kind", ["operator", "authority"])
def test_nobody_signs_up_as_operator_or_authority(world: World, kind: str) -> None:
    body = SIGN_UP | {"kind": kind}
    assert world.call("POST", "/organisations", json=body).status_code == 403
    assert world.call("POST", "/organisations", "factory", json=body).status_code == 403
    assert world.call("POST", "/organisations", "operator", json=body).status_code == 201


def test_unknown_address_and_wrong_password_get_the_same_answer(world: World) -> None:
    answers = []
    for email, password in [("factory@demo.example", "wrong-wrong"), ("nobody@demo.example", PASSWORD), ("x", "y")]:
        status, body = sign_in(world, email, password)
        body.pop("request_id")
        answers.append((status, body))
    assert answers[0][0] == 401
    assert answers[0] == answers[1] == answers[2]


def test_after_ten_failures_even_the_right_password_waits(world: World) -> None:
    for _ in range(10):
        assert sign_in(world, "factory@demo.example", "wrong-wrong")[0] == 401
    answer = world.call("POST", "/sessions", json={"email": "factory@demo.example", "password": PASSWORD})
    assert (answer.status_code, answer.json["limit"]) == (429, 10)
    assert int(answer.headers["Retry-After"]) == answer.json["retry_after_s"] == 301
    assert sign_in(world, "developer@demo.example", PASSWORD)[0] == 201
    world.pass_time(timedelta(minutes=5, seconds=1))
    assert sign_in(world, "factory@demo.example", PASSWORD)[0] == 201


def test_one_address_may_not_try_many_accounts(world: World) -> None:
    statuses = [sign_in(world, f"guess{number}@demo.example", "x")[0] for number in range(51)]
    assert statuses == [401] * 50 + [429]


def test_sign_out_ends_this_session_only(world: World) -> None:
    _, second = sign_in(world, "factory@demo.example", PASSWORD)
    world.tokens["second"] = str(second["token"])
    assert world.call("DELETE", "/sessions", "second").status_code == 204
    assert world.call("GET", "/me", "second").status_code == 401
    assert world.call("GET", "/me", "factory").status_code == 200


def test_sessions_expire_and_tokens_are_not_stored(world: World) -> None:
    assert world.call("GET", "/me", "factory").status_code == 200
    with world.sessions.read() as session:
        stored = set(session.scalars(select(SignInSession.token_hash)))
    assert len(stored) == 1
    assert stored.isdisjoint(world.tokens.values())
    world.pass_time(timedelta(days=7))
    assert world.call("GET", "/me", "factory").status_code == 401


@pytest.mark.parametrize("token", ["", "gs_", "gs_wrong", "x" * 5_000, "' OR 1=1--", "gs_\u00e9"])
def test_other_tokens_are_nobody(world: World, token: str) -> None:
    world.tokens["odd"] = token
    assert world.call("GET", "/me", "odd").status_code == 401


def test_a_suspended_firm_is_out_at_once_and_back_when_verified(world: World) -> None:
    assert world.call("GET", "/me", "factory").status_code == 200
    path = f"/organisations/{world.actors['factory'].organisation_id}"
    assert world.call("POST", f"{path}/suspend", "operator", json={"reason": "forged licence"}).status_code == 200
    assert world.call("GET", "/me", "factory").status_code == 401
    assert sign_in(world, "factory@demo.example", PASSWORD)[0] == 401
    assert world.call("POST", f"{path}/verify", "operator").status_code == 200
    assert world.call("GET", "/me", "factory").status_code == 200


def test_an_operator_cannot_suspend_the_own_firm(world: World) -> None:
    path = f"/organisations/{world.actors['operator'].organisation_id}/suspend"
    assert world.call("POST", path, "operator", json={"reason": "slip"}).status_code == 409


def test_language_is_kept_and_others_are_refused(world: World) -> None:
    assert world.call("PATCH", "/me", "factory", json={"language": "zh"}).json["language"] == "zh"
    assert world.call("PATCH", "/me", "factory", json={"language": "../../"}).status_code == 422
    assert world.call("GET", "/me", "factory").json["user"]["language"] == "zh"


BOSS = ("boss@newworks.example", "long-enough-9")


def add_operators(world: World) -> str:
    """Let the operator add another operator organisation, beside a second person; return the organisation's path."""
    join(world, "second")
    made = world.call("POST", "/organisations", "operator", json=SIGN_UP | {"kind": "operator"}).json
    assert made["organisation"]["state"] == "pending"
    return f"/organisations/{made['organisation']['id']}"


def verify(world: World, path: str, who: str) -> tuple[int, str]:
    answer = world.call("POST", f"{path}/verify", who)
    return answer.status_code, answer.json.get("code") or answer.json["state"]


def test_an_operator_organisation_is_confirmed_by_another_operator_than_who_added_it(world: World) -> None:
    path = add_operators(world)
    assert sign_in(world, *BOSS)[0] == 401
    assert verify(world, path, "operator") == (403, "four_eyes")
    assert sign_in(world, *BOSS)[1]["code"] == "bad_credentials"
    assert verify(world, path, "second") == (200, "verified")
    status, opened = sign_in(world, *BOSS)
    assert status == 201
    world.tokens["boss"] = str(opened["token"])
    assert world.call("GET", "/me", "boss").json["user"]["role"] == "operator"
    assert world.call("GET", "/organisations", "boss").status_code == 200


def test_people_of_a_pending_or_suspended_operator_organisation_do_nothing(world: World) -> None:
    path = add_operators(world)
    verify(world, path, "second")
    world.tokens["boss"] = str(sign_in(world, *BOSS)[1]["token"])
    with world.sessions.write() as session:
        # As an installation may hold it from before: nobody confirmed it, and its people are signed in.
        row = session.get_one(Organisation, path.rpartition("/")[2])
        row.state, row.verified_by, row.verified_at = OrganisationState.PENDING, None, None
    assert world.call("GET", "/organisations", "boss").status_code == 401
    assert verify(world, path, "boss")[0] == 401
    assert verify(world, path, "second") == (200, "verified")
    assert world.call("GET", "/organisations", "boss").status_code == 200
    assert world.call("POST", f"{path}/suspend", "operator", json={"reason": "forged licence"}).status_code == 200
    assert world.call("GET", "/me", "boss").status_code == 401
    assert sign_in(world, *BOSS)[0] == 401
    assert verify(world, path, "operator") == (403, "four_eyes")
    assert verify(world, path, "second") == (200, "verified")
    assert world.call("GET", "/me", "boss").status_code == 200


def test_the_operators_that_an_installation_adds_sign_in_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUANMO_DATABASE_URL", world.sessions.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("GUANMO_HOME", str(world.home))
    for person in ("first", "other"):
        email = f"{person}@install.example"
        words = ["add", email, "--name", person, "--organisation", "新运营 Newrun", "--uscc", make_demo_uscc(600)]
        result = CliRunner().invoke(operators, words)
        assert result.exit_code == 0, result.output
        password = re.search(r"密码:\s+(\S+)", result.output)
        assert password
        status, opened = sign_in(world, email, password[1])
        assert status == 201
        world.tokens[person] = str(opened["token"])
        assert world.call("GET", "/organisations", person).status_code == 200
        assert world.call("GET", "/me", person).json["user"]["one_time_password"] is True
