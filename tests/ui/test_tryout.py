"""Trying a model goes through the gateway with a key of one's own firm and shows what the law asks for."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.organisations.tables import ApiKey
from tests.ui.twin_gateway import TwinGateway, run_gateway
from tests.ui.world import World, copy_world, mark_ready

ADAPTER = "demo-integrator/orders@1"


@pytest.fixture
def twin() -> Iterator[TwinGateway]:
    with run_gateway() as made:
        yield made


@pytest.fixture
def running(untouched: World, tmp_path: Path, twin: TwinGateway) -> Iterator[World]:
    world = copy_world(untouched, tmp_path, gateway_port=twin.port)
    mark_ready(world, "orders", "integrator")
    yield world
    world.sessions.close()


def list_keys(world: World) -> list[ApiKey]:
    with world.sessions.read() as session:
        return list(session.scalars(select(ApiKey).where(ApiKey.name == "try-it")))


def test_answer_streams_with_its_label(running: World, twin: TwinGateway) -> None:
    client = running.visit("factory")
    answer = client.post("/tryout", json={"model": ADAPTER, "message": " spindle hot "})
    assert answer.text == "spindle bearing overheats [orders@1]"
    assert answer.headers["x-ai-generated"] == "true"
    assert answer.headers["x-guanmo-filing"].startswith("DEMO-")
    assert twin.calls[0]["messages"] == [{"role": "user", "content": "spindle hot"}]
    (key,) = list_keys(running)
    assert key.organisation_id == running.actors["factory"].organisation_id
    assert twin.keys[0].startswith(f"Bearer gm_{key.id.removeprefix('key_')}_")


def test_key_is_kept_and_replaced_before_it_ends(running: World, twin: TwinGateway) -> None:
    client = running.visit("factory")
    for _ in range(2):
        client.post("/tryout", json={"model": ADAPTER, "message": "x"})
    assert len(list_keys(running)) == 1
    assert len(set(twin.keys)) == 1
    running.now += timedelta(minutes=56)
    client.post("/tryout", json={"model": ADAPTER, "message": "x"})
    running.now += timedelta(minutes=58)
    client.post("/tryout", json={"model": ADAPTER, "message": "x"})
    keys = list_keys(running)
    assert len(keys) == 3
    assert sum(key.revoked_at is not None for key in keys) == 1


def test_fresh_key_waits_until_the_gateway_knows_it(running: World, twin: TwinGateway) -> None:
    twin.unknown_key_for = 1
    answer = running.visit("factory").post("/tryout", json={"model": ADAPTER, "message": "x"})
    assert answer.status_code == 200
    assert len(twin.calls) == 2


def test_refusal_reads_well_in_both_languages(running: World, twin: TwinGateway) -> None:
    for language, words in (("en", "no model 'a/missing'"), ("zh", "没有该模型")):
        answer = running.visit("factory", language).post("/tryout", json={"model": "a/missing", "message": "x"})
        assert answer.status_code == 409
        assert answer.content_type == "application/problem+json"
        assert words in answer.get_json()["detail"]


def test_broken_answer_says_so(running: World, twin: TwinGateway) -> None:
    twin.broken = True
    answer = running.visit("factory").post("/tryout", json={"model": ADAPTER, "message": "x"})
    assert "broke off" in answer.text


def test_engine_that_does_not_start_is_not_waited_for(
    running: World, twin: TwinGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin.holding = True
    monkeypatch.setattr("marketplace_ui.gateway_call.READ_S", -1)
    answer = running.visit("factory").post("/tryout", json={"model": ADAPTER, "message": "x"})
    assert "the engine may be starting" in answer.text


@pytest.mark.parametrize("body", [{"model": ADAPTER, "message": "  "}, {"model": ADAPTER, "message": "x" * 2001}, [1]])
def test_bad_message_never_reaches_the_gateway(running: World, twin: TwinGateway, body: object) -> None:
    answer = running.visit("factory").post("/tryout", json=body)
    assert answer.status_code == (422 if isinstance(body, dict) else 400)
    assert twin.calls == []
    assert list_keys(running) == []


def test_stranger_and_auditor_are_refused(running: World, twin: TwinGateway) -> None:
    body = {"model": ADAPTER, "message": "x"}
    assert running.visit().post("/tryout", json=body, headers={"Accept": "text/plain"}).status_code == 401
    assert running.visit("auditor").post("/tryout", json=body, headers={"Accept": "text/plain"}).status_code == 403
    assert twin.calls == []


def test_silent_gateway_is_said_plainly(running: World) -> None:
    world = running
    with run_gateway() as gone:
        port = gone.port
    context = world.app.extensions["guanmo"]
    settings = type(context.settings)(**(vars(context.settings) | {"gateway_port": port}))
    world.app.extensions["guanmo"] = type(context)(**(vars(context) | {"settings": settings}))
    answer = world.visit("factory").post("/tryout", json={"model": ADAPTER, "message": "x"})
    assert answer.status_code == 409
    assert f"127.0.0.1:{port}" in answer.get_json()["detail"]


def test_form_without_scripts_answers_side_by_side(running: World) -> None:
    client = running.visit("factory")
    page = client.get(f"/models/{ADAPTER}").text
    assert 'name="model" value="guanmo/demo-zh@1"' in page
    sent = {"message": "spindle hot", "model": ["guanmo/demo-zh@1", ADAPTER]}
    answer = client.post(f"/models/{ADAPTER}", data=sent)
    assert answer.status_code == 200
    assert "overheats [demo-zh@1]" in answer.text
    assert "overheats [orders@1]" in answer.text
    assert answer.text.count("AI-generated content") == 2
    empty = client.post(f"/models/{ADAPTER}", data=sent | {"message": " "})
    assert empty.status_code == 422
    assert "The message has 0 characters" in empty.text


def test_undeployed_model_offers_no_form(market: World) -> None:
    page = market.visit("factory").get("/models/demo-integrator/orders").text
    assert "Not deployed yet" in page
    assert 'name="message"' not in page


@pytest.mark.parametrize(("language", "label"), [("en", "AI-generated content"), ("zh", "本内容由人工智能生成")])
def test_s5_17_an_answer_on_the_page_says_that_it_was_generated_and_by_which_filing(
    running: World, language: str, label: str
) -> None:
    client = running.visit("factory", language)
    hidden = re.compile(r'<div class="label-ai" data-label hidden>')
    page = client.get(f"/models/{ADAPTER}").text
    # One for each of the two models side by side, shown by the script with the first text.
    assert (len(hidden.findall(page)), page.count(label)) == (2, 2)
    answered = client.post(f"/models/{ADAPTER}", data={"message": "spindle hot", "model": [ADAPTER]}).text
    shown = answered.partition("overheats [orders@1]")[2].partition("</div>")[2].partition("</div>")[0]
    assert label in shown
    assert re.search(r"DEMO-.*0001", shown)
    assert not hidden.search(shown)
    assert len(hidden.findall(answered)) == 1, "the model that was not asked has said nothing"
