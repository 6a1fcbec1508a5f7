"""The stock openai SDK against a running gateway: plain, streamed, listed, refused."""

from collections.abc import Iterator
from threading import Timer
from typing import Any

import httpx
import openai
import pytest

from serving.contract import (
    Block,
    BlockScope,
    EndReason,
    InFlight,
    SubjectKind,
    UsageStatus,
    Visibility,
    cost_ufen,
    engine_name,
)
from tests.gateway.engine import Engine
from tests.gateway.samples import ADAPTER, BASE, CUSTOMER, OWNER, PRICES, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

ADAPTER_NAME = "宏达/maintnorm@3"
MESSAGES: Any = [{"role": "user", "content": "主轴 bearing worn"}]
FREE, LISTED, FOREIGN_IP, OWNERS, SLOW, REVOKED, NEW, NEVER = 1, 2, 3, 4, 5, 6, 7, 8
RETIRING: Any = {"retires_at": 4_102_444_800_000_000, "successor": "org/base"}
"""2100-01-01, announced with what comes after it."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    keys = (
        make_key(FREE),
        make_key(LISTED, models=("org/base",)),
        make_key(FOREIGN_IP, ip_ranges=("10.0.0.0/8",)),
        make_key(OWNERS, organisation_id=OWNER),
        make_key(SLOW, rpm=2),
        make_key(REVOKED, revoked_at=1),
    )
    models = (
        make_model("org/base"),
        make_model(ADAPTER_NAME, ADAPTER),
        make_model("org/private", ADAPTER, visibility=Visibility.PRIVATE),
        make_model("org/guests", ADAPTER, visibility=Visibility.ACL, acl=(CUSTOMER,), **RETIRING),
        make_model("org/unfiled", filing=None),
        make_model("org/old", retires_at=1),
    )
    snapshot = make_snapshot(keys=keys, models=models)
    with running_world(snapshot, tmp_path_factory.mktemp("live")) as world, running_gateway(world) as gateway:
        yield world, gateway


@pytest.fixture
def world(stage: tuple[World, Gateway]) -> Iterator[World]:
    yield stage[0]
    stage[0].engines[0].__init__()  # type: ignore[misc]


@pytest.fixture
def gateway(stage: tuple[World, Gateway], world: World) -> Gateway:
    return stage[1]


@pytest.fixture
def engine(world: World) -> Engine:
    return world.engines[0]


def request_id_of(headers: Any) -> str:
    return str(headers["x-request-id"])


def test_plain_chat_is_answered_labelled_and_billed(gateway: Gateway, world: World, engine: Engine) -> None:
    engine.cached_tokens = 4
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model=ADAPTER_NAME, messages=MESSAGES, max_completion_tokens=40, user="u"
        )
    answer = raw.parse()
    assert (answer.model, answer.choices[0].message.content) == (ADAPTER_NAME, "xxxxx")
    assert raw.headers["x-ai-generated"] == "true"
    assert raw.headers["x-guanmo-filing"] == "DEMO-%E5%A4%87%E6%A1%88-0001"
    version_id = raw.headers["x-guanmo-model-version"]
    sent = engine.seen[0]
    assert sent["model"] == engine_name(ADAPTER)
    assert sent["max_tokens"] == 40
    assert {"user", "max_completion_tokens"}.isdisjoint(sent)
    assert len(sent["cache_salt"]) == 64
    request_id = request_id_of(raw.headers)
    assert sent["_request_id"] == f"{request_id}-1"
    record = wait_for(lambda: world.hub.usage.get((request_id, 1)))
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (11, 4, 5)
    assert (record.version_id, record.digest, record.replica_id) == (version_id, ADAPTER, "rep_0")
    assert (record.end_reason, record.status, record.disputed) == (EndReason.STOP, UsageStatus.COMPLETE, False)
    assert (record.organisation_id, record.cost_centre) == (CUSTOMER, "line-7")


def test_stream_hides_running_usage(gateway: Gateway, world: World) -> None:
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="org/base", messages=MESSAGES, stream=True)
        chunks = list(raw.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "w1 w2 w3 w4 w5 "
    assert {chunk.model for chunk in chunks} == {"org/base"}
    assert all(chunk.usage is None for chunk in chunks)
    assert world.engines[0].seen[0]["model"] == "base"
    record = wait_for(lambda: world.hub.usage.get((request_id_of(raw.headers), 1)))
    assert (record.completion_tokens, record.digest) == (5, BASE)


def test_stream_gives_the_final_usage_when_asked(gateway: Gateway) -> None:
    with gateway.client() as client:
        stream = client.chat.completions.create(
            model="org/base", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert [chunk.usage is not None for chunk in chunks] == [False] * 5 + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 16


def test_text_completion_gets_a_bound(gateway: Gateway, engine: Engine) -> None:
    with gateway.client() as client:
        answer = client.completions.create(model="org/base", prompt=["a", "b"])
    assert answer.choices[0].text == "xxxxx"
    assert engine.seen[0]["max_tokens"] == 16


def test_models_lists_only_what_the_key_may_call(gateway: Gateway) -> None:
    with gateway.client(FREE) as free, gateway.client(LISTED) as listed, gateway.client(OWNERS) as owner:
        shown = {model.id: model for model in free.models.list()}
        assert set(shown) == {"org/base", ADAPTER_NAME, "org/guests"}
        assert shown["org/base"].to_dict()["filing"] == {"name": "Demo base", "number": "DEMO-备案-0001"}
        told = shown["org/guests"].to_dict()
        assert (told["retires_at"], told["successor"]) == ("2100-01-01T00:00:00+00:00", "org/base")
        assert shown["org/base"].to_dict()["retires_at"] is None
        assert [model.id for model in listed.models.list()] == ["org/base"]
        assert {"org/private", "org/unfiled"} <= {model.id for model in owner.models.list()}
        assert free.models.retrieve(ADAPTER_NAME).id == ADAPTER_NAME


@pytest.mark.parametrize(
    ("number", "model", "status", "code"),
    [
        (FREE, "org/none", 404, "model_not_found"),
        (FREE, "org/private", 404, "model_not_found"),
        (FREE, "org/unfiled", 403, "filing_missing"),
        (FREE, "org/old", 404, "model_retired"),
        (LISTED, ADAPTER_NAME, 403, "model_not_allowed"),
        (FOREIGN_IP, "org/base", 403, "address_not_allowed"),
        (REVOKED, "org/base", 401, "api_key_revoked"),
        (99, "org/base", 401, "invalid_api_key"),
    ],
)
def test_refused_calls(gateway: Gateway, engine: Engine, number: int, model: str, status: int, code: str) -> None:
    with gateway.client(number) as client, pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=model, messages=MESSAGES)
    assert (refused.value.status_code, refused.value.code) == (status, code)
    assert request_id_of(refused.value.response.headers) in refused.value.message
    assert engine.seen == []


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"guided_grammar": "x"}, "guided_grammar"),
        ({"n": 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
    ],
)
def test_bad_parameters_are_named(gateway: Gateway, extra: dict[str, Any], param: str) -> None:
    with gateway.client() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="org/base", messages=MESSAGES, extra_body=extra)
    assert refused.value.param == param


def test_requests_a_minute(gateway: Gateway) -> None:
    with gateway.client(SLOW) as client:
        for _ in range(2):
            client.chat.completions.create(model="org/base", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="org/base", messages=MESSAGES)
    body: Any = refused.value.body
    assert (body["code"], body["limit"], body["used"], body["left"]) == ("rate_limit_exceeded", "rpm", 2, 0)
    assert body["set_by"] == f"key {make_key(SLOW).key_id}"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 61


def test_engine_errors_keep_their_text_inside(gateway: Gateway, engine: Engine) -> None:
    with gateway.client() as client:
        for mode, status, code in (
            ("too-long", 400, "context_length_exceeded"),
            ("broken", 502, "upstream_failed"),
            ("busy", 503, "replicas_busy"),
            ("draining", 503, "replica_not_ready"),
        ):
            engine.mode = mode
            with pytest.raises(openai.APIStatusError) as failed:
                client.chat.completions.create(model="org/base", messages=MESSAGES)
            assert (failed.value.status_code, failed.value.code) == (status, code)
            assert "secret" not in failed.value.response.text
            known: Any = failed.value.body
            assert known.get("limit") == {"too-long": "context_tokens", "busy": "engine_calls"}.get(mode)


def test_surfaces_without_a_backend(gateway: Gateway) -> None:
    with gateway.client() as client:
        with pytest.raises(openai.APIStatusError) as batches:
            client.batches.list()
        with pytest.raises(openai.APIStatusError) as embeddings:
            client.embeddings.create(model="org/base", input="x", encoding_format="float")
    assert (batches.value.status_code, embeddings.value.status_code) == (501, 501)


def test_files_go_to_the_hub(gateway: Gateway, world: World) -> None:
    headers = {"authorization": f"Bearer {secret_of(1)}"}
    with httpx.Client(base_url=gateway.url, headers=headers) as client:
        answer = client.post("/v1/files/a%2Fb?x=1", content=b"z" * 300_000)
    assert answer.json() == {"path": "/v1/files/a%2Fb?x=1", "size": 300_000}
    assert "x-internal" not in answer.headers
    assert world.hub.uploads == [(f"Bearer {secret_of(1)}", 300_000)]


def test_demand_reaches_the_pool(gateway: Gateway, world: World) -> None:
    world.engines[0].delay_s = 0.5
    with gateway.client() as client:
        list(client.chat.completions.create(model=ADAPTER_NAME, messages=MESSAGES, stream=True))
    rows = [row for demand in world.pool.demands for row in demand.rows]
    assert (ADAPTER, 1) in {(row.digest, row.in_flight) for row in rows}


def test_a_cut_ends_running_streams(gateway: Gateway, world: World, engine: Engine) -> None:
    engine.delay_s, engine.tokens = 0.1, 100
    cut = Block(SubjectKind.ADAPTER, ADAPTER, BlockScope.ALL, InFlight.CUT, "quarantined", "已隔离", "quarantined", 1)
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model=ADAPTER_NAME, messages=MESSAGES, stream=True)
        stream = iter(raw.parse())
        next(stream)
        world.publish(blocks=(cut,))
        with pytest.raises(openai.APIError, match="quarantined"):
            list(stream)
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model=ADAPTER_NAME, messages=MESSAGES)
        world.publish(blocks=())
    record = wait_for(lambda: world.hub.usage.get((request_id_of(raw.headers), 1)))
    assert (record.end_reason, record.status) == (EndReason.BLOCKED, UsageStatus.PARTIAL)
    assert 1 <= record.completion_tokens < 100
    wait_for(lambda: engine.aborted)


def test_a_client_that_leaves_pays_what_was_generated(gateway: Gateway, world: World, engine: Engine) -> None:
    engine.delay_s, engine.tokens = 0.02, 500
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="org/base", messages=MESSAGES, stream=True)
        stream = raw.parse()
        for _ in range(3):
            next(iter(stream))
        stream.close()
    record = wait_for(lambda: world.hub.usage.get((request_id_of(raw.headers), 1)))
    assert record.end_reason is EndReason.CLIENT_GONE
    assert 3 <= record.completion_tokens < 500
    wait_for(lambda: engine.aborted)
    assert engine.produced < 500
    assert cost_ufen(PRICES, 11, 0, record.completion_tokens) == 33_000 + 7_000 * record.completion_tokens


def test_an_engine_that_dies_in_mid_stream_is_no_success(gateway: Gateway, world: World, engine: Engine) -> None:
    engine.delay_s = 0.05
    with gateway.client() as client:
        for mode in ("dies-mid", "error-mid"):
            engine.mode = mode
            raw = client.chat.completions.with_raw_response.create(model="org/base", messages=MESSAGES, stream=True)
            with pytest.raises(openai.APIError) as failed:
                list(raw.parse())
            assert failed.value.code == "upstream_failed"
            assert "secret" not in str(failed.value)
            record = wait_for(lambda: world.hub.usage.get((request_id_of(raw.headers), 1)))  # noqa: B023
            assert (record.end_reason, record.completion_tokens) == (EndReason.UPSTREAM_DIED, 2)


def test_first_call_with_a_key_and_a_name_made_a_moment_ago_waits_for_them(gateway: Gateway, world: World) -> None:
    """A person makes a key and calls at once: the next snapshot comes within a second."""
    before = world.hub.snapshot
    late = Timer(
        0.4,
        lambda: world.publish(
            keys=(*before.keys, make_key(NEW)), models=(*before.models, make_model("org/new", ADAPTER))
        ),
    )
    late.start()
    answer = gateway.client(NEW).chat.completions.create(model="org/new", messages=MESSAGES, max_tokens=4)
    late.join()
    assert answer.model == "org/new"
    with pytest.raises(openai.AuthenticationError):
        gateway.client(NEVER).models.list()
