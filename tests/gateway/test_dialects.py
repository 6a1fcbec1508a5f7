"""`/v1/messages` with the stock Anthropic SDK and `/v1/responses` with the stock OpenAI SDK."""

import http.client
import json
import time
import typing
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import message_create_params
from openai.types.responses import response_create_params

from serving.contract import EndReason, UsageStatus
from serving.gateway.errors import GatewayError
from serving.gateway.surfaces import MESSAGES, RESPONSES, SURFACES, Surface
from tests.gateway.bodies import send
from tests.gateway.engine import Engine
from tests.gateway.samples import make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

ASKED: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    snapshot = make_snapshot(keys=(make_key(1), make_key(2, rpm=1)), models=(make_model("org/base"),))
    folder = tmp_path_factory.mktemp("dialects")
    with running_world(snapshot, folder) as world, running_gateway(world) as gateway:
        yield world, gateway


def anthropic_client(gateway: Gateway, number: int = 1) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=secret_of(number), max_retries=0, timeout=20)


def record_of(world: World, request_id: str) -> Any:
    return wait_for(lambda: world.hub.usage.get((request_id, 1)))


def test_a_message_is_answered_and_billed(stage: tuple[World, Gateway], engine: Engine) -> None:
    world, gateway = stage
    with anthropic_client(gateway) as client:
        raw = client.messages.with_raw_response.create(model="org/base", max_tokens=9, messages=ASKED, system="short")
    answer = raw.parse()
    assert (answer.model, answer.content[0].to_dict()["text"], answer.stop_reason) == (
        "org/base",
        "wwwww",
        "max_tokens",
    )
    assert engine.seen[0]["model"] == "base"
    assert (engine.seen[0]["max_tokens"], len(engine.seen[0]["cache_salt"])) == (9, 64)
    record = record_of(world, raw.headers["x-request-id"])
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (11, 4, 5)
    assert (record.end_reason, record.disputed) == (EndReason.LENGTH, False)


def test_a_streamed_message_is_billed(stage: tuple[World, Gateway], engine: Engine) -> None:
    world, gateway = stage
    before = set(world.hub.usage)
    with (
        anthropic_client(gateway) as client,
        client.messages.stream(model="org/base", max_tokens=9, messages=ASKED) as stream,
    ):
        assert "".join(stream.text_stream) == "wwwww"
        assert stream.get_final_message().model == "org/base"
    key = wait_for(lambda: next(iter(set(world.hub.usage) - before), None))
    record = world.hub.usage[key]
    assert (record.prompt_tokens, record.completion_tokens, record.status) == (11, 5, UsageStatus.COMPLETE)


def test_a_response_is_answered_streamed_and_billed(stage: tuple[World, Gateway], engine: Engine) -> None:
    world, gateway = stage
    with gateway.client() as client:
        raw = client.responses.with_raw_response.create(model="org/base", input="hello", store=True)
        assert (raw.parse().output_text, raw.parse().model) == ("wwwww", "org/base")
        streamed = client.responses.with_raw_response.create(model="org/base", input=ASKED, stream=True)
        events = list(streamed.parse())
    assert [event.type for event in events].count("response.output_text.delta") == 5
    assert events[-1].to_dict()["response"]["model"] == "org/base"  # type: ignore[index]
    assert [seen["store"] for seen in engine.seen] == [False, False]
    for headers in (raw.headers, streamed.headers):
        record = record_of(world, headers["x-request-id"])
        assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (11, 4, 5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/chat/completions", {"messages": ASKED}),
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"messages": ASKED, "max_tokens": 9}),
    ],
)
def test_s5_08_a_client_that_leaves_before_any_text_ends_the_engines_work_and_pays_nothing(
    stage: tuple[World, Gateway], engine: Engine, path: str, said: dict[str, Any], stream: bool
) -> None:
    world, gateway = stage
    engine.delay_s = 5.0
    before = set(world.hub.usage)
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    body = json.dumps({"model": "org/base", "stream": stream} | said)
    connection.request("POST", path, body, {"authorization": f"Bearer {secret_of(1)}"})
    wait_for(lambda: engine.seen)
    connection.close()
    left_at_s = time.monotonic()
    wait_for(lambda: engine.aborted)
    assert time.monotonic() - left_at_s < 3.0, "the engine would go on for five"
    key = wait_for(lambda: next(iter(set(world.hub.usage) - before), None))
    record = world.hub.usage[key]
    assert (record.end_reason, record.status) == (EndReason.CLIENT_GONE, UsageStatus.FAILED)
    assert (record.prompt_tokens, record.completion_tokens, record.disputed) == (0, 0, True)
    assert (len(engine.seen), engine.aborted) == (1, 1)


@pytest.mark.parametrize("surface", [RESPONSES, MESSAGES], ids=lambda surface: surface.name)
def test_s5_08_a_client_that_leaves_with_text_pays_what_the_engine_tells_at_the_end(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface
) -> None:
    """Aborted, the text that it has would be free: these streams tell their tokens with the last event only."""
    world, gateway = stage
    engine.delay_s = 0.05
    said: dict[str, Any] = {"input": "hello"} if surface is RESPONSES else {"messages": ASKED, "max_tokens": 9}
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    body = json.dumps({"model": "org/base", "stream": True} | said)
    connection.request("POST", surface.path, body, {"authorization": f"Bearer {secret_of(1)}"})
    answer = connection.getresponse()
    while b"delta" not in answer.readline():
        pass
    answer.close()
    connection.close()
    record = record_of(world, str(answer.headers["x-request-id"]))
    assert (record.completion_tokens, record.status, record.disputed) == (5, UsageStatus.COMPLETE, False)
    assert engine.aborted == 0


def test_an_engine_that_dies_is_no_success(stage: tuple[World, Gateway], engine: Engine) -> None:
    world, gateway = stage
    engine.mode = "dies-mid"
    with gateway.client() as client:
        raw = client.responses.with_raw_response.create(model="org/base", input="hello", stream=True)
        with pytest.raises(openai.APIError):
            list(raw.parse())
    record = record_of(world, raw.headers["x-request-id"])
    assert (record.end_reason, record.disputed) == (EndReason.UPSTREAM_DIED, True)


def test_errors_have_the_shape_of_the_dialect(stage: tuple[World, Gateway], engine: Engine) -> None:
    _, gateway = stage
    with anthropic_client(gateway, 2) as client:
        client.messages.create(model="org/base", max_tokens=9, messages=ASKED)
        with pytest.raises(anthropic.RateLimitError) as limited:
            client.messages.create(model="org/base", max_tokens=9, messages=ASKED)
    body: Any = limited.value.body
    assert (body["type"], body["error"]["type"], body["error"]["limit"]) == ("error", "rate_limit_error", "rpm")
    assert body["request_id"] == limited.value.response.headers["x-request-id"]
    with anthropic_client(gateway, 99) as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model="org/base", max_tokens=9, messages=ASKED)
    engine.mode = "no-dialects"
    with anthropic_client(gateway) as client, pytest.raises(anthropic.APIStatusError) as missing:
        client.messages.create(model="org/base", max_tokens=9, messages=ASKED)
    assert missing.value.status_code == 501


def test_batches_have_no_backend_yet(stage: tuple[World, Gateway]) -> None:
    with stage[1].client() as client, pytest.raises(openai.APIStatusError) as refused:
        client.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h")
    assert (refused.value.status_code, refused.value.code) == (501, "not_implemented")


NAMED = [
    (RESPONSES, name)
    for name in sorted(typing.get_type_hints(response_create_params.ResponseCreateParamsStreaming))
    if name not in ("previous_response_id", "conversation", "prompt", "background")
]


@pytest.mark.parametrize(("surface", "name"), NAMED, ids=lambda value: getattr(value, "name", value))
def test_each_field_of_the_responses_schema_is_known(surface: Any, name: str) -> None:
    assert len(NAMED) > 25
    values = {"input": "x", "model": "org/m", "stream": True, "max_output_tokens": 7, "temperature": 0, "top_p": 1}
    values |= {"top_logprobs": 1, "parallel_tool_calls": True, "tools": [], "text": {}, "truncation": "auto"}
    sent = send_named(**{name: values.get(name, {})})
    assert (name in surface.ignored) == (name not in sent or name == "store")


def send_named(**fields: Any) -> dict[str, Any]:
    return send(RESPONSES, **{"input": "x", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://169.254.169.254/"}]}]},
        {
            "input": [
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_url": "x"}]}
            ]
        },
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "http://127.0.0.1/"}}}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_url": "http://127.0.0.1"}]},
        {"cache_salt": "x"},
        {"input": "\0"},
        {"max_output_tokens": 0},
    ],
    ids=range(12),
)
def test_what_responses_do_not_take(fields: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as refused:
        send_named(**fields)
    assert refused.value.status == 400
    assert refused.value.param


@pytest.mark.parametrize(
    "config", ["x", {"format": "x"}, {"format": {"type": "json_schema", "schema": {"$ref": "http://169.254.169.254/"}}}]
)
def test_s5_05_a_schema_of_messages_is_bounded(config: Any) -> None:
    said = [{"role": "user", "content": "x"}]
    with pytest.raises(GatewayError) as refused:
        send(MESSAGES, messages=said, max_tokens=5, output_config=config)
    assert (refused.value.status, str(refused.value.param).partition(".")[0]) == (400, "output_config")


def test_what_messages_do_not_take() -> None:
    known = set(typing.get_type_hints(message_create_params.MessageCreateParamsStreaming))
    # The SDK has dropped the sampling fields, the engine has not.
    assert (MESSAGES.fields | MESSAGES.ignored) - {"temperature", "top_k", "top_p"} == known
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1"}}
    for fields in (
        {"messages": ASKED},
        {"messages": [{"role": "user", "content": [image]}], "max_tokens": 5},
        {"messages": ASKED, "max_tokens": 5, "tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"messages": ASKED, "max_tokens": 5, "mcp_servers": []},
        {"messages": ASKED, "max_tokens": 5, "container": "container_1"},
        {"messages": ASKED, "max_tokens": 5, "chat_template_kwargs": {}},
    ):
        with pytest.raises(GatewayError) as refused:
            send(MESSAGES, **fields)
        assert (refused.value.status, json.loads(refused.value.anthropic_envelope("r"))["type"]) == (400, "error")


def test_every_surface_has_its_own_path() -> None:
    assert len(SURFACES) == 5
