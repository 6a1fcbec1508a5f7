"""Who may open and change what; strangers are sent to sign in and come back."""

import pytest

from hub.catalogue.tables import VersionState
from tests.ui.world import World

PRIVATE = ("/account", "/endpoints", "/endpoints/keys/new", "/uploads", "/uploads/new", "/endpoints?month=2026-10")


@pytest.mark.parametrize("path", PRIVATE)
def test_stranger_signs_in_first_and_comes_back(market: World, path: str) -> None:
    client = market.visit()
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer.location.startswith("/sign-in?next=")
    back = client.post(answer.location, data=market.credentials["integrator"])
    assert back.status_code == 302
    assert back.location == path


@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_sign_in_and_language_never_lead_elsewhere(market: World, evil: str) -> None:
    client = market.visit()
    assert client.post("/sign-in", query_string={"next": evil}, data=market.credentials["factory"]).location == "/"
    assert client.get("/language/zh", query_string={"back": evil}).location == "/"


@pytest.mark.parametrize(
    ("who", "path"), [("auditor", "/endpoints"), ("developer", "/uploads"), ("provider", "/uploads/new")]
)
def test_other_roles_are_refused_in_words(market: World, who: str, path: str) -> None:
    answer = market.visit(who).get(path)
    assert answer.status_code == 403
    assert f"Role &#39;{who}&#39; may not do this" in answer.text


def test_form_from_another_site_is_refused(world: World) -> None:
    client = world.visit("factory")
    sent = client.post("/endpoints/keys/new", data={"name": "x"}, headers={"Origin": "https://evil.example"})
    assert sent.status_code == 403
    sent = client.post("/endpoints/keys/new", data={"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert sent.status_code == 403
    assert "No key yet" in client.get("/endpoints").text


def test_session_cookie_is_out_of_reach_of_scripts(world: World) -> None:
    answer = world.visit().post("/sign-in", data=world.credentials["factory"])
    cookie = next(value for value in answer.headers.getlist("Set-Cookie") if value.startswith("guanmo_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_private_page_is_not_kept_by_caches(market: World) -> None:
    assert market.visit("factory").get("/account").headers["Cache-Control"] == "no-store"


def test_private_model_does_not_exist_for_others(world: World) -> None:
    with world.sessions.write() as session:
        version = session.merge(world.versions["orders"])
        version.state = VersionState.PRIVATE
    assert world.visit("factory").get("/models/demo-integrator/orders").status_code == 404
    assert world.visit("integrator").get("/models/demo-integrator/orders").status_code == 200


def test_failure_shows_the_request_and_nothing_else(world: World) -> None:
    world.app.config["PROPAGATE_EXCEPTIONS"] = False
    with world.sessions.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE offers")
    answer = world.visit().get("/offers")
    assert answer.status_code == 500
    assert "req_" in answer.text
    assert "sqlite" not in answer.text.lower()
