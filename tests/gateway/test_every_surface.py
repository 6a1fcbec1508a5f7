"""What holds on one surface holds on all: every guard refuses and every answer is labelled, whole or streamed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.contract import Block, BlockScope, InFlight, SubjectKind
from serving.gateway.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, SURFACES, Surface
from tests.gateway.engine import Engine
from tests.gateway.samples import ADAPTER, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world

FREE, REVOKED, EXPIRED, FOREIGN, SCOPELESS, LISTED, BUSY, FEW_TOKENS, POOR = range(1, 10)
SAID: Any = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT.path: {"messages": SAID},
    COMPLETIONS.path: {"prompt": "hello"},
    EMBEDDINGS.path: {"input": "hello"},
    RESPONSES.path: {"input": "hello"},
    MESSAGES.path: {"messages": SAID, "max_tokens": 9},
}
WAYS = [
    (surface, stream) for surface in SURFACES.values() for stream in ((False, True) if surface.may_stream else (False,))
]
GUARDS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "no key": ({}, 99, 401, "invalid_api_key"),
    "revoked key": ({}, REVOKED, 401, "api_key_revoked"),
    "expired key": ({}, EXPIRED, 401, "api_key_expired"),
    "foreign address": ({}, FOREIGN, 403, "address_not_allowed"),
    "no scope": ({}, SCOPELESS, 403, "scope_missing"),
    "model not on the key's list": ({}, LISTED, 403, "model_not_allowed"),
    "places of the key": ({}, BUSY, 429, "rate_limit_exceeded"),
    "tokens of the key": ({}, FEW_TOKENS, 429, "rate_limit_exceeded"),
    "money": ({}, POOR, 429, "insufficient_quota"),
    "model of another firm": ({"model": "org/private"}, FREE, 404, "model_not_found"),
    "no filing": ({"model": "org/unfiled"}, FREE, 403, "filing_missing"),
    "retired": ({"model": "org/old"}, FREE, 404, "model_retired"),
    "taken off the market": ({"model": "org/blocked"}, FREE, 403, "quarantined"),
    "no version": ({"model": "org/empty"}, FREE, 404, "model_not_deployed"),
    "field of the engine": ({"lora_request": {}}, FREE, 400, "unknown_parameter"),
    "salt of the engine": ({"cache_salt": "x"}, FREE, 400, "unknown_parameter"),
    "model that is no name": ({"model": 7}, FREE, 400, "invalid_value"),
    "too long a body": ({"user": "x" * 2**22}, FREE, 413, "body_too_large"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    keys = (
        make_key(FREE),
        make_key(REVOKED, revoked_at=1),
        make_key(EXPIRED, expires_at=1),
        make_key(FOREIGN, ip_ranges=("10.0.0.0/8",)),
        make_key(SCOPELESS, scopes=()),
        make_key(LISTED, models=("org/other",)),
        make_key(BUSY, concurrency=0),
        make_key(FEW_TOKENS, tpm=1),
        make_key(POOR, organisation_id="org_poor"),
    )
    models = (
        make_model("org/base"),
        make_model("org/private", ADAPTER, visibility="private"),
        make_model("org/unfiled", filing=None),
        make_model("org/old", retires_at=1),
        make_model("org/blocked", ADAPTER),
        make_model("org/empty", targets=()),
    )
    block = Block(SubjectKind.ADAPTER, ADAPTER, BlockScope.ALL, InFlight.FINISH, "quarantined", "已隔离", "held", 1)
    snapshot = make_snapshot(keys=keys, models=models, blocks=(block,))
    with running_world(snapshot, tmp_path_factory.mktemp("surfaces")) as world, running_gateway(world) as gateway:
        yield world, gateway


def ask(gateway: Gateway, surface: Surface, stream: bool, key: int = FREE, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret_of(key)}", **more.pop("headers", {})}
    body = {"model": "org/base"} | BODIES[surface.path] | ({"stream": True} if stream else {}) | more
    return httpx.post(gateway.url + surface.path, json=body, headers=headers, timeout=20)


@pytest.mark.parametrize(("surface", "stream"), WAYS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("guard", GUARDS)
def test_s5_15_every_guard_stands_before_every_surface(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface, stream: bool, guard: str
) -> None:
    world, gateway = stage
    more, key, status, code = GUARDS[guard]
    if "user" in more and "user" not in surface.ignored:
        more = {"metadata": more["user"]}
    balance, world.hub.balance_ufen = world.hub.balance_ufen, 0 if key == POOR else world.hub.balance_ufen
    answer = ask(gateway, surface, stream, key, **more)
    world.hub.balance_ufen = balance
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert (error["message"].count(answer.headers["x-request-id"]), engine.seen) == (1, [])


def test_s5_15_the_guards_are_many() -> None:
    assert (len(WAYS), len(GUARDS)) == (9, 18)
    assert BODIES.keys() == SURFACES.keys()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", [CHAT, COMPLETIONS], ids=lambda surface: surface.name)
def test_s5_15_a_killer_is_kept_from_every_surface(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface, stream: bool
) -> None:
    engine.mode = "dies-before"
    first, second = (ask(stage[1], surface, stream, user="killer") for _ in range(2))
    assert "upstream_failed" in first.text
    assert (second.status_code, second.json()["error"]["code"]) == (422, "request_quarantined")
    assert len(engine.seen) == 1


@pytest.mark.parametrize("surface", [RESPONSES, MESSAGES], ids=lambda surface: surface.name)
def test_s5_06_a_stream_that_had_text_when_its_engine_died_is_not_kept_away(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface
) -> None:
    engine.mode = "dies-mid"
    for _ in range(2):
        answer = ask(stage[1], surface, True, metadata={"user_id": "bystander"})
        assert (answer.status_code, "upstream_failed" in answer.text) == (200, True)
        assert ("output_text.delta" if surface is RESPONSES else "content_block_start") in answer.text
    assert len(engine.seen) == 2


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/batches/batch_1", "/v1/moderations", "/v1/audio/speech"])
def test_s5_15_no_batch_is_a_way_around(stage: tuple[World, Gateway], engine: Engine, path: str) -> None:
    answer = httpx.post(stage[1].url + path, json={"input_file_id": "f"}, headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["error"]["code"], engine.seen) == (501, "not_implemented", [])


SPEAKING = [way for way in WAYS if way[0] is not EMBEDDINGS]


@pytest.mark.parametrize(("surface", "stream"), SPEAKING, ids=lambda value: getattr(value, "name", value))
def test_s5_17_every_answer_carries_its_label_filing_and_version(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface, stream: bool
) -> None:
    named = {"idempotency-key": f"label {surface.name} {stream}"}
    for replayed in (None, "true"):
        answer = ask(stage[1], surface, stream, headers=named)
        assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (200, replayed)
        assert answer.headers["x-ai-generated"] == "true"
        assert answer.headers["x-guanmo-filing"].startswith("DEMO-")
        assert answer.headers["x-guanmo-model-version"].startswith("ver_")
        assert ("text/event-stream" in answer.headers["content-type"]) == stream
    assert len(engine.seen) == 1


def test_s5_17_a_stream_that_waits_for_an_engine_is_labelled_before_its_first_text(
    stage: tuple[World, Gateway], engine: Engine
) -> None:
    gateway = stage[1]
    engine.delay_s = 1.0
    body = {"model": "org/base", "messages": SAID, "stream": True}
    headers = {"authorization": f"Bearer {secret_of(FREE)}"}
    with httpx.stream("POST", gateway.url + CHAT.path, json=body, headers=headers, timeout=20) as answer:
        assert (answer.headers["x-ai-generated"], engine.produced) == ("true", 0)


def test_s5_17_a_refusal_is_nobodys_text(stage: tuple[World, Gateway]) -> None:
    for surface, stream in WAYS:
        assert "x-ai-generated" not in ask(stage[1], surface, stream, REVOKED).headers
    assert json.loads(ask(stage[1], EMBEDDINGS, False).content)["error"]["code"] == "not_implemented"
