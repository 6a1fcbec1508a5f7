"""Four eyes by person: whose account goes back to whom, and passwords that somebody else was shown."""

import pytest
from sqlalchemy import select

from hub.actor import Actor, Role
from hub.errors import FourEyesError
from hub.events.service import SYSTEM
from hub.events.tables import Event
from hub.organisations.rules import make_demo_uscc
from hub.organisations.second_person import OwnPasswordError, SameHandError
from hub.organisations.service import create_user, require_second_person, sign_in
from tests.hub.market.test_people_and_keys import add_person
from tests.hub.market.world import PASSWORD, World, hashed

OWN = "only-mine-77"


def join(world: World, who: str, *, added_by: str | None = None, one_time: bool = False) -> Actor:
    """Give the operator's organisation one more person, added by another of them or by the installation."""
    with world.sessions.write() as session:
        user = create_user(
            session,
            organisation_id=world.actors["operator"].organisation_id,
            email=f"{who}@demo.example",
            name=who,
            password=hashed(),
            role=Role.OPERATOR,
            now=world.now,
            actor_id=world.actors[added_by].user_id if added_by else SYSTEM,
            one_time_password=one_time,
        )
        world.tokens[who] = sign_in(session, email=user.email, password=PASSWORD, now=world.now).token
    world.actors[who] = Actor(user.id, user.organisation_id, Role.OPERATOR)
    return world.actors[who]


def check(world: World, second: str, *firsts: str) -> None:
    ids = [world.actors[first].user_id for first in firsts]
    with world.sessions.read() as session:
        require_second_person(session, world.actors[second], ids, en="another person", zh="另一人")


def test_accounts_that_go_back_to_one_person_are_one_hand(world: World) -> None:
    join(world, "added", added_by="operator")
    join(world, "sister", added_by="operator")
    join(world, "grandchild", added_by="added")
    join(world, "other")
    pairs = [("added", "operator"), ("operator", "added"), ("added", "sister"), ("grandchild", "sister")]
    for second, first in pairs:
        with pytest.raises(SameHandError, match=r"'operator'.*`guanmo operators add`.*another manager does not"):
            check(world, second, first)
        with pytest.raises(SameHandError):
            check(world, second, "other", first)
    for second, first in [("added", "other"), ("other", "added"), ("other", "operator"), ("operator", "factory")]:
        check(world, second, first)
    with pytest.raises(FourEyesError, match="another person"):
        check(world, "other", "other")


def test_a_password_that_somebody_else_knows_decides_nothing(world: World) -> None:
    join(world, "other", one_time=True)
    with pytest.raises(OwnPasswordError, match="POST /api/v1/me/password"):
        check(world, "other", "operator")
    with pytest.raises(OwnPasswordError):
        check(world, "other")
    check(world, "operator", "other")


def set_password(world: World, who: str, present: str, new: str) -> tuple[int, dict[str, object]]:
    body = {"present_password": present, "new_password": new}
    answer = world.call("POST", "/me/password", who, json=body)
    assert answer.json is not None
    return answer.status_code, answer.json


def test_a_person_who_was_added_sets_a_password_and_then_decides_but_not_with_who_added_them(world: World) -> None:
    status, added = add_person(world, "operator", "operator")
    assert (status, added["one_time_password"], added["added_by"]) == (201, True, world.actors["operator"].user_id)
    for browser in ("second", "elsewhere"):
        opened = world.call("POST", "/sessions", json={"email": "second@demo.example", "password": PASSWORD}).json
        assert opened["user"]["one_time_password"] is True
        world.tokens[browser] = opened["token"]
    join(world, "other")
    paths = {who: add_operator_firm(world, who, serial) for serial, who in enumerate(("other", "operator"), start=700)}
    assert world.call("POST", paths["other"], "second").json["code"] == "own_password_needed"
    assert set_password(world, "second", "not this one", OWN)[1]["code"] == "wrong_password"
    status, refused = set_password(world, "second", PASSWORD, PASSWORD)
    assert (status, refused["code"], refused["field"]) == (422, "bad_password", "new_password")
    assert set_password(world, "second", PASSWORD, "short")[1]["field"] == "new_password"
    assert set_password(world, "second", PASSWORD, OWN)[1]["one_time_password"] is False
    assert world.call("GET", "/me", "elsewhere").status_code == 401
    assert world.call("POST", paths["other"], "second").json["state"] == "verified"
    assert world.call("POST", paths["operator"], "second").json["code"] == "same_hand"
    before = {"email": "second@demo.example", "password": PASSWORD}
    assert world.call("POST", "/sessions", json=before).status_code == 401
    with world.sessions.read() as session:
        events = session.scalars(select(Event).where(Event.subject == added["id"]).order_by(Event.seq)).all()
    assert [(event.topic, event.actor_id) for event in events] == [
        ("user.created", world.actors["operator"].user_id),
        ("user.password_set", added["id"]),
    ]


def add_operator_firm(world: World, who: str, serial: int) -> str:
    """Add an operator organisation, whose first person has a one-time password; return the path of its confirmation."""
    person = {"email": f"boss-{who}@demo.example", "name": "boss", "password": PASSWORD}
    body = {"name": f"firm of {who}", "slug": f"firm-{serial}", "uscc": make_demo_uscc(serial), "kind": "operator"}
    made = world.call("POST", "/organisations", who, json={**body, "user": person}).json
    assert (made["user"]["one_time_password"], made["user"]["added_by"]) == (True, world.actors[who].user_id)
    return f"/organisations/{made['organisation']['id']}/verify"


def test_whoever_signs_up_has_a_password_of_their_own(world: World) -> None:
    person = {"email": "boss@works.example", "name": "boss", "password": PASSWORD}
    body = {"name": "works", "slug": "works", "uscc": make_demo_uscc(710), "kind": "factory", "user": person}
    made = world.call("POST", "/organisations", json=body).json
    assert (made["user"]["one_time_password"], made["user"]["added_by"]) == (False, None)


def test_a_firm_that_an_operator_enters_is_not_of_the_operators_hand(world: World) -> None:
    person = {"email": "boss@works.example", "name": "boss", "password": PASSWORD}
    body = {"name": "works", "slug": "works", "uscc": make_demo_uscc(711), "kind": "factory", "user": person}
    made = world.call("POST", "/organisations", "operator", json=body).json
    assert (made["user"]["one_time_password"], made["user"]["added_by"]) == (True, None)
    with world.sessions.read() as session:
        require_second_person(session, world.actors["operator"], [made["user"]["id"]], en="another person", zh="另一人")


def test_the_present_password_is_not_guessed_for_long(world: World) -> None:
    for _ in range(10):
        assert set_password(world, "factory", "wrong-wrong", OWN)[0] == 422
    assert set_password(world, "factory", PASSWORD, OWN)[0] == 429
