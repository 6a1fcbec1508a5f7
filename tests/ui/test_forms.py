"""Forms keep what was typed, say beside the input what is wrong, and change what they promise."""

import csv
import io
import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from hub.organisations.rules import make_demo_uscc
from hub.organisations.tables import ApiKey, Organisation, OrganisationState, User, UserState
from marketplace_ui.forms import Form
from marketplace_ui.usage import UsageRow, write_usage_csv
from tests.ui.world import World, mark_ready

FIRM = {
    "kind": "factory",
    "name": "新厂",
    "uscc": make_demo_uscc(77),
    "slug": "new-firm",
    "person": "Li",
    "email": "li@new.example",
    "password": "correct horse",
}


def error_of(html: str, name: str) -> str:
    """The message beside one input, empty if there is none."""
    found = re.search(rf'id="e-{name}">([^<]*)<', html)
    return found[1] if found else ""


def test_sign_up_signs_in_and_waits_for_verification(world: World) -> None:
    client = world.visit()
    answer = client.post("/sign-up", data=FIRM)
    assert answer.location == "/account?done=signed_up"
    page = client.get(answer.location).text
    assert "You are registered" in page
    assert "To be verified" in page
    with world.sessions.read() as session:
        firm = session.scalars(select(Organisation).where(Organisation.slug == "new-firm")).one()
    assert firm.state is OrganisationState.PENDING


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("uscc", "91990000DEM0000770", "check character"),
        ("uscc", "abc", "18 characters"),
        ("email", "nobody", "e-mail"),
        ("password", "short", "8 characters"),
        ("slug", "Not A Slug", "1 to 40"),
        ("name", "", "fill this in"),
        ("kind", "operator", "kind of organisation"),
    ],
)
def test_sign_up_keeps_what_was_typed(market: World, field: str, typed: str, message: str) -> None:
    answer = market.visit().post("/sign-up", data=FIRM | {field: typed})
    assert answer.status_code == 422
    assert message in error_of(answer.text, field)
    assert 'value="Li"' in answer.text
    assert "correct horse" not in answer.text
    with market.sessions.read() as session:
        assert session.scalar(select(User.id).where(User.email == FIRM["email"])) is None


def test_code_that_is_taken_says_so_in_chinese(world: World) -> None:
    world.visit().post("/sign-up", data=FIRM)
    again = FIRM | {"email": "other@new.example", "slug": "other"}
    answer = world.visit(language="zh").post("/sign-up", data=again)
    assert "已注册" in error_of(answer.text, "uscc")


def test_wrong_password_keeps_the_address(world: World) -> None:
    answer = world.visit().post("/sign-in", data={"email": "factory@demo.guanmo.example", "password": "wrong one"})
    assert answer.status_code == 422
    assert "E-mail or password is wrong" in answer.text
    assert 'value="factory@demo.guanmo.example"' in answer.text


def test_sign_out_ends_the_session(world: World) -> None:
    client = world.visit("factory")
    cookie = client.get_cookie("guanmo_session")
    assert client.post("/sign-out").location == "/"
    assert cookie is not None
    client.set_cookie("guanmo_session", cookie.value)
    assert client.get("/account").status_code == 302


def test_sign_out_everywhere_ends_the_other_browser(world: World) -> None:
    here, there = world.visit("factory", fresh=True), world.visit("factory", fresh=True)
    assert here.post("/account/sessions/end").location == "/sign-in"
    assert there.get("/account").status_code == 302


def test_manager_adds_and_removes_a_colleague(world: World) -> None:
    client = world.visit("factory")
    person = {"name": "Wang", "email": "wang@f.example", "password": "long enough", "role": "factory"}
    assert client.post("/account/people", data=person).location == "/account?done=added"
    again = client.post("/account/people", data=person)
    assert again.status_code == 422
    assert "has an account already" in error_of(again.text, "email")
    assert client.post("/account/people", data=person | {"role": "operator"}).status_code == 422
    with world.sessions.read() as session:
        user = session.scalars(select(User).where(User.email == "wang@f.example")).one()
    assert client.post(f"/account/people/{user.id}/remove").location == "/account?done=removed"
    with world.sessions.read() as session:
        assert session.get_one(User, user.id).state is UserState.REMOVED


def test_a_colleague_who_was_added_is_led_to_a_password_of_their_own(world: World) -> None:
    person = {"name": "Zhao", "email": "zhao@f.example", "password": "long enough", "role": "factory"}
    world.visit("factory").post("/account/people", data=person)
    client = world.visit()
    entered = client.post("/sign-in", data={"email": "zhao@f.example", "password": "long enough"})
    assert entered.location == "/account?done=own_password"
    assert "Somebody else knows your one-time password" in client.get(entered.location).text
    wrong = client.post("/account/password", data={"present_password": "long enoug", "new_password": "only mine 7"})
    assert wrong.status_code == 422
    assert "not your present password" in error_of(wrong.text, "present_password")
    right = {"present_password": "long enough", "new_password": "only mine 7"}
    assert client.post("/account/password", data=right).location == "/account?done=password"
    page = client.get("/account?done=password").text
    assert "Your own password is set" in page
    assert "cannot approve what others did" not in page
    entered = world.visit().post("/sign-in", data={"email": "zhao@f.example", "password": "only mine 7"})
    assert entered.location == "/"


def test_colleague_who_does_not_manage_cannot_add(world: World) -> None:
    person = {"name": "Wang", "email": "wang@f.example", "password": "long enough", "role": "factory"}
    world.visit("factory").post("/account/people", data=person)
    shown = world.visit("factory").get("/account").text
    assert "only guanmo operators add makes an independent account, another manager does not" in shown
    world.credentials["wang"] = {"email": "wang@f.example", "password": "long enough"}
    client = world.visit("wang")
    assert "Add a person" not in client.get("/account").text
    assert "Only the person who manages" in client.post("/account/people", data=person | {"email": "x@f.example"}).text


def test_language_is_kept(world: World) -> None:
    client = world.visit("factory", "en")
    assert client.post("/account/language", data={"language": "zh"}).status_code == 302
    assert "账户" in client.get("/account").text
    assert client.get("/language/en?back=/models?q=x").location == "/models?q=x"
    assert "Choose a model" in client.get("/models").text


def test_key_is_shown_once_and_revoked(world: World) -> None:
    client = world.visit("factory")
    answer = client.post("/endpoints/keys/new", data={"name": "line 2", "rpm": "60", "budget_fen": "12.50"})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    text = re.search(r"gm_[0-9a-f]{32}_[A-Za-z0-9_-]{43}", answer.text)
    assert text is not None
    assert text[0] not in client.get("/endpoints").text
    with world.sessions.read() as session:
        key = session.scalars(select(ApiKey).where(ApiKey.name == "line 2")).one()
    assert (key.rpm, key.last4) == (60, text[0][-4:])
    assert client.post(f"/endpoints/keys/{key.id}/revoke").location == "/endpoints?done=revoked#keys"
    assert "Revoked" in client.get("/endpoints").text
    assert world.visit("integrator").post(f"/endpoints/keys/{key.id}/revoke").status_code == 404


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("name", " ", "fill this in"),
        ("rpm", "many", "&#39;many&#39; is not a whole number"),
        ("rpm", "0", "from 1 to"),
        ("budget_fen", "1.234", "two decimals"),
        ("expires_at", "31.12.2026", "not a date"),
        ("expires_at", "2020-01-01", "Give a later time"),
    ],
)
def test_key_form_keeps_what_was_typed(market: World, field: str, typed: str, message: str) -> None:
    typed_form = {"name": "kept", "tpm": "777"} | {field: typed}
    answer = market.visit("factory").post("/endpoints/keys/new", data=typed_form)
    assert answer.status_code == 422
    assert message in error_of(answer.text, field)
    assert 'value="777"' in answer.text


def test_deploy_undeploy_and_their_refusals(world: World) -> None:
    owner, version = world.visit("integrator"), world.versions["orders"].id
    assert owner.post("/endpoints/deploy", data={"version_id": version}).location == "/endpoints?done=deployed"
    assert "Starting" in owner.get("/endpoints").text
    other = world.visit("factory").post("/endpoints/undeploy", data={"version_id": version})
    assert other.status_code == 409
    assert "No version" in other.text
    refused = owner.post("/endpoints/roll-back", data={"public_name": "demo-integrator/orders"})
    assert refused.status_code == 409
    assert owner.post("/endpoints/undeploy", data={"version_id": version}).location == "/endpoints?done=undeployed"
    assert "No endpoint yet" in owner.get("/endpoints").text


def test_model_page_shows_the_price_after_vouchers(market: World) -> None:
    stranger = market.visit().get("/models/demo-integrator/orders").text
    assert "¥20.00" in stranger
    assert "¥10.00" not in stranger
    factory = market.visit("factory").get("/models/demo-integrator/orders").text
    assert "¥10.00" in factory
    assert "Model voucher" in factory
    trial = market.visit("factory").get("/models/guanmo/demo-trial").text
    assert "needs a filed base model" in trial


def test_model_card_cannot_run_or_load_anything(market: World) -> None:
    page = market.visit().get("/models/guanmo/demo-zh").text
    assert "<strong>work orders</strong>" in page
    assert "<td>spindle hot</td>" in page
    assert "<script>alert" not in page
    assert "tracker.example" not in page
    assert 'rel="nofollow noopener noreferrer"' in page


def test_model_page_shows_scores_lineage_and_filing(market: World) -> None:
    page = market.visit().get("/models/demo-integrator/orders").text
    assert "92.5 %" in page
    assert "[88.0 %, 95.4 %]" in page
    assert "guanmo/demo-zh@1" in page
    assert market.versions["demo-zh"].weights_digest[:12] in page
    assert "DEMO-备案-0001" in page


def test_search_is_a_part_for_scripts_and_whole_from_history(market: World) -> None:
    client = market.visit()
    part = client.get("/models?q=work&kind=&sort=new", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert part.headers["HX-Push-Url"] == "/models?q=work"
    history = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert "<html" in client.get("/models?q=work", headers=history).text
    assert client.get("/models").headers["Vary"] == "HX-Request"


def test_search_says_which_filters_it_left_out(market: World) -> None:
    page = market.visit().get("/models?filing=bogus&kind=adapter").text
    assert "left out: filing" in page
    assert page.count('class="model"') == 1


@pytest.mark.parametrize(("order", "first"), [("name", "demo-trial"), ("price", "demo-trial"), ("new", "orders")])
def test_search_orders(market: World, order: str, first: str) -> None:
    page = market.visit().get(f"/models?sort={order}").text
    names = re.findall(r'class="model-name" translate="no">[^/]*/([^<]*)<', page)
    expected = {"name": ["demo-zh", "demo-trial", "orders"], "new": ["orders", "demo-trial", "demo-zh"]}
    assert sorted(names) == sorted(expected["new"])
    assert names == expected.get(order, names)
    assert order != "price" or names[-1] == "orders"
    assert first in names


def test_offers_filter(market: World) -> None:
    client = market.visit()
    assert client.get("/offers").text.count('<td class="money"') == 3
    assert client.get("/offers?via=yes").text.count('<td class="money"') == 2
    assert client.get("/offers?max_hour=25").text.count('<td class="money"') == 1
    refused = client.get("/offers?max_hour=cheap")
    assert refused.status_code == 422
    assert "is not an amount" in error_of(refused.text, "max_hour")


def test_usage_is_summed_by_day_key_and_model(market: World) -> None:
    page = market.visit("factory").get("/endpoints").text
    assert re.search(r'translate="no"[^>]*>demo-integrator/orders@1</td>', page)
    assert "No calls this month" in market.visit("integrator").get("/endpoints").text


def test_usage_goes_home_as_csv(market: World) -> None:
    client = market.visit("factory")
    assert "/endpoints/usage.csv?month=" in client.get("/endpoints").text
    answer = client.get("/endpoints/usage.csv")
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.get_data().decode("utf-8-sig"))))
    assert rows
    assert {row["model"] for row in rows} == {"demo-integrator/orders@1"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["day"]) for row in rows)
    assert sum(int(row["calls"]) for row in rows) > 0
    assert all(re.fullmatch(r"\d+\.\d{8}", row["rated_cny"]) for row in rows)
    assert len(market.visit("integrator").get("/endpoints/usage.csv").text.splitlines()) == 1
    assert market.visit("integrator").get("/endpoints/usage.csv?month=2026-13").status_code == 422


def test_a_formula_in_a_keys_name_stays_text() -> None:
    row = UsageRow(datetime(2026, 11, 2, 4, tzinfo=UTC), "=1+1", "@x/y@1", 1, 2, 0, 3, 123_456_789)
    assert write_usage_csv([row]).decode().splitlines()[1] == "2026-11-02,'=1+1,'@x/y@1,1,2,0,3,1.23456789"


def test_roll_back_is_offered_only_with_a_version_before(world: World) -> None:
    mark_ready(world, "orders", "integrator")
    page = world.visit("integrator").get("/endpoints").text
    assert "Ready" in page
    assert "Roll back" not in page


@pytest.mark.parametrize(("typed", "fen"), [("12.5", 1250), ("¥1,000", 100_000), ("", None), ("0.01", 1)])
def test_yuan_is_read_exactly(market: World, typed: str, fen: int | None) -> None:
    with market.app.test_request_context():
        form = Form({"amount": typed})
        assert form.yuan("amount") == fen
        assert form.ok


@pytest.mark.parametrize("typed", ["1e400", "NaN", "-1", "1.001", "一百", "9" * 40])
def test_strange_amounts_are_refused(market: World, typed: str) -> None:
    with market.app.test_request_context():
        form = Form({"amount": typed})
        assert form.yuan("amount") is None
        assert form.error("amount")
