"""What becomes of a call when its engine, its client or its patience ends."""

import contextlib
import http.client
import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.contract import EndReason, RouteReplica, Routes, UsageStatus
from serving.gateway.routing import Router
from serving.gateway.sse import Usage
from serving.gateway.surfaces import CHAT, COMPLETIONS
from serving.gateway.transcript import Transcript, may_continue
from tests.gateway.samples import BASE, make_key, make_model, make_snapshot, secret_of
from tests.gateway.test_failures import spent_by_hub
from tests.gateway.test_rules import Time, resolve_target, view_of
from tests.gateway.world import Gateway, running_gateway, running_world, wait_for

SNAPSHOT = make_snapshot(keys=(make_key(1), make_key(2)), models=(make_model("org/base"),))
MESSAGES: Any = [{"role": "user", "content": "hello"}]


def ask(gateway: Gateway, **extra: Any) -> Any:
    with gateway.client() as client:
        return client.chat.completions.create(model="org/base", messages=MESSAGES, **extra)


def post(gateway: Gateway, body: dict[str, Any], **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    sent = {"authorization": f"Bearer {secret_of(1)}", "connection": "close", **headers}
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "org/base"} | body), sent)
    return connection.getresponse()


@pytest.mark.parametrize("mode", ["dies-mid", "error-mid"])
def test_a_greedy_stream_goes_on_elsewhere_with_the_same_text(tmp_path: Path, mode: str) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:
        world.engines[0].mode = mode
        answer = post(
            gateway,
            {"messages": MESSAGES, "stream": True, "temperature": 0, "stream_options": {"include_usage": True}},
        ).read()
        chunks = [json.loads(line[6:]) for line in answer.split(b"\n\n") if line.startswith(b"data: {")]
        text = "".join(choice["delta"]["content"] for chunk in chunks for choice in chunk["choices"])
        assert text == "w1 w2 w3 w4 w5 "
        assert answer.endswith(b"data: [DONE]\n\n")
        assert b"token_ids" not in answer
        assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
            ("chatcmpl-1", "chat.completion.chunk", "org/base")
        }
        assert chunks[-1]["usage"] == {"prompt_tokens": 11, "total_tokens": 16, "completion_tokens": 5}
        assert world.engines[1].seen[0]["prompt"] == [*range(1, 12), 101, 102]
        wait_for(lambda: len(world.hub.usage) == 2)
        first, second = sorted(world.hub.usage.values(), key=lambda record: record.attempt)
        assert (first.prompt_tokens, first.completion_tokens, first.end_reason) == (11, 2, EndReason.UPSTREAM_DIED)
        assert (second.prompt_tokens, second.completion_tokens, second.end_reason) == (0, 3, EndReason.STOP)
        assert (first.request_id, second.status) == (second.request_id, UsageStatus.COMPLETE)
        assert gateway.stop() == 0
        assert spent_by_hub(world) == sum(close.spent_ufen for close in world.hub.closed.values())


def test_a_stream_that_waits_to_go_on_is_not_late_by_the_time_of_its_first_engine(tmp_path: Path) -> None:
    """Its own engine is avoided first, so it waits for another for 3 s, longer than a first token may take here."""
    with (
        running_world(SNAPSHOT, tmp_path) as world,
        running_gateway(world, hold_s=10.0, more=("--first-token-s", "1.5")) as gateway,
    ):
        engine = world.engines[0]
        engine.mode = "dies-mid"
        answer = post(gateway, {"messages": MESSAGES, "stream": True, "temperature": 0})
        wait_for(lambda: engine.produced == 2 and not engine.running)
        engine.mode = "ok"
        rest = answer.read()
        assert (b"first_token_late" in rest, rest.endswith(b"data: [DONE]\n\n")) == (False, True)
        assert len(engine.seen) == 2


def test_a_sampled_stream_does_not_go_on_elsewhere(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:
        world.engines[0].mode = "dies-mid"
        answer = post(gateway, {"messages": MESSAGES, "stream": True, "temperature": 1}).read()
        assert b"upstream_failed" in answer
        assert b"[DONE]" not in answer
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.completion_tokens, record.end_reason) == (2, EndReason.UPSTREAM_DIED)
        assert world.engines[1].seen == []


def test_tokens_held_back_are_generated_again() -> None:
    transcript = Transcript(CHAT)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "base"}

    def say(text: str, *ids: int) -> None:
        transcript.take(head | {"choices": [{"index": 0, "delta": {"content": text}, "token_ids": list(ids)}]})

    transcript.take(head | {"prompt_token_ids": [1, 2], "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    assert not transcript.can_continue
    say("a", 11)
    say("", 12)
    say("主", 13)
    say("", 14)
    say("b\ufffd", 15)
    assert (transcript.can_continue, transcript.said_tokens) == (True, 3)
    body = json.dumps({"model": "base", "messages": MESSAGES, "temperature": 0, "max_tokens": 9, "cache_salt": "s"})
    request = json.loads(transcript.next_request(body.encode(), Usage(2, 0, 5), 100))
    assert (request["prompt"], request["max_tokens"], request["cache_salt"]) == ([1, 2, 11, 12, 13], 6, "s")
    assert "messages" not in request


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.1},
        {"temperature": None},
        {"stop": ["x"]},
        {"n": 2},
        {"tools": [{}]},
        {"frequency_penalty": 1},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"stream": False},
    ],
)
def test_what_could_come_out_differently_is_not_continued(more: dict[str, Any]) -> None:
    body = {"model": "base", "messages": MESSAGES, "stream": True, "temperature": 0, "n": 1, "seed": 7}
    assert may_continue(CHAT, body)
    assert not may_continue(CHAT, body | more)
    assert not may_continue(COMPLETIONS, {"prompt": ["a", "b"], "stream": True, "temperature": 0})


def test_a_named_request_is_run_and_billed_once(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        for stream in (False, True):
            body, name = {"messages": MESSAGES, "stream": stream}, {"Idempotency-Key": f"order 7 {stream}"}
            first, second = post(gateway, body, **name), post(gateway, body, **name)
            assert (first.read(), first.headers["x-request-id"]) == (second.read(), second.headers["x-request-id"])
            assert second.headers["idempotent-replayed"] == "true"
            assert first.headers["content-type"] == second.headers["content-type"]
            other = post(gateway, body | {"seed": 1}, **name)
            assert (other.status, json.loads(other.read())["error"]["code"]) == (409, "idempotency_key_reused")
            assert other.headers["x-should-retry"] == "false"
        wait_for(lambda: len(world.hub.usage) == 2)
        assert len(world.engines[0].seen) == 2


def test_a_named_request_asked_again_while_it_runs_waits_for_the_first(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].delay_s = 0.1
        body = {"messages": MESSAGES, "stream": True}
        early = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
        headers = {"authorization": f"Bearer {secret_of(1)}", "idempotency-key": "k"}
        early.request("POST", "/v1/chat/completions", json.dumps({"model": "org/base"} | body), headers)
        wait_for(lambda: world.engines[0].seen)
        early.close()
        again = post(gateway, body, **{"idempotency-key": "k"})
        assert again.read().endswith(b"data: [DONE]\n\n")
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (len(world.engines[0].seen), record.status, record.completion_tokens) == (1, UsageStatus.COMPLETE, 5)


@pytest.mark.parametrize("late", [0.9, 0.05])
def test_a_stock_sdk_that_gave_up_waiting_gets_the_answer_by_its_retry_and_pays_once(
    tmp_path: Path, late: float
) -> None:
    """The first try may still run when the second comes, or have ended meanwhile."""
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].delay_s = 0.4 + late
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=secret_of(1), max_retries=2, timeout=0.4) as client:
            said: Any = MESSAGES
            with contextlib.suppress(openai.APITimeoutError):
                client.chat.completions.create(model="org/base", messages=said)
            wait_for(lambda: len(world.hub.usage) == 1)
            world.engines[0].delay_s = 0.0
            fresh = client.chat.completions.create(model="org/base", messages=said)
        assert fresh.choices[0].finish_reason == "stop"
        wait_for(lambda: len(world.hub.usage) == 2, timeout_s=20)
        assert len(world.engines[0].seen) == 2, "the retries of the first call started nothing"


def test_an_answer_that_nobody_fetched_is_given_to_one_retry_of_its_own_key(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].delay_s = 0.3
        early = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
        headers = {"authorization": f"Bearer {secret_of(1)}", "x-stainless-retry-count": "0"}
        early.request("POST", "/v1/chat/completions", json.dumps({"model": "org/base", "messages": MESSAGES}), headers)
        wait_for(lambda: world.engines[0].seen)
        early.close()
        wait_for(lambda: len(world.hub.usage) == 1)
        first_id = next(iter(world.hub.usage.values())).request_id
        for count, replayed in (("1", True), ("1", False), ("0", False)):
            answer = post(gateway, {"messages": MESSAGES}, **{"x-stainless-retry-count": count})
            assert (answer.status, answer.headers["idempotent-replayed"] == "true") == (200, replayed)
            assert (answer.headers["x-request-id"] == first_id) is replayed
            answer.read()
        wait_for(lambda: len(world.hub.usage) == 3)
        assert len(world.engines[0].seen) == 3


def test_a_failed_named_request_may_be_tried_again(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].mode = "busy"
        assert post(gateway, {"messages": MESSAGES}, **{"idempotency-key": "k"}).status == 503
        world.engines[0].mode = "ok"
        assert post(gateway, {"messages": MESSAGES}, **{"idempotency-key": "k"}).status == 200
        assert post(gateway, {"messages": MESSAGES}, **{"idempotency-key": "x" * 256}).status == 400


@pytest.mark.parametrize(
    ("mode", "option", "code", "tokens"),
    [("ok", "--first-token-s", "first_token_late", 0), ("stalls", "--between-tokens-s", "token_late", 2)],
)
def test_deadlines_of_a_stream(tmp_path: Path, mode: str, option: str, code: str, tokens: int) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, more=(option, "0.4")) as gateway:
        world.engines[0].mode = mode
        world.engines[0].delay_s = 3.0 if mode == "ok" else 0.01
        answer = post(gateway, {"messages": MESSAGES, "stream": True}).read()
        assert json.loads(answer.split(b"data: ")[-1])["error"]["code"] == code
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.end_reason, record.completion_tokens) == (EndReason.TIMEOUT, tokens)
        wait_for(lambda: world.engines[0].aborted)


def test_an_engine_that_is_silent_before_its_head_is_late_too(tmp_path: Path) -> None:
    with (
        running_world(SNAPSHOT, tmp_path) as world,
        running_gateway(world, more=("--first-token-s", "0.4")) as gateway,
    ):
        world.engines[0].mode = "no-head"
        began = time.monotonic()
        answer = post(gateway, {"messages": MESSAGES, "stream": True})
        assert b"first_token_late" in answer.read()
        assert time.monotonic() - began < 10
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.end_reason, record.completion_tokens) == (EndReason.TIMEOUT, 0)


def test_a_silent_engine_is_bridged_by_comments(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, more=("--keep-alive-s", "0.3")) as gateway:
        world.engines[0].delay_s, world.engines[0].tokens = 1.0, 2
        answer = post(gateway, {"messages": MESSAGES, "stream": True}).read()
        assert answer.count(b": keep-alive\n\n") >= 2
        assert answer.endswith(b"data: [DONE]\n\n")


def test_the_whole_request_has_a_deadline(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, more=("--total-s", "0.4")) as gateway:
        world.engines[0].delay_s = 3.0
        answer = post(gateway, {"messages": MESSAGES})
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (504, "deadline_exceeded")


def test_a_failing_replica_is_left_alone_longer_each_time() -> None:
    clock = Time()
    router = Router(clock.clock)
    bad, good = (RouteReplica(name, 1, "http://x", BASE, draining=False) for name in "ab")
    router.replace(Routes(1, (bad, good), {}, {}))
    target = resolve_target(view_of(make_model("org/b")), make_key(1), "org/b", session="r", now_us=1)

    def waits_s() -> float:
        began_s = clock.now_s
        while router.pick(target) != bad:
            clock.now_s += 0.5
        router.probing(bad)
        assert router.pick(target) == good
        return clock.now_s - began_s

    waited = []
    for _ in range(7):
        router.suspect(bad, hard=True)
        waited.append(waits_s())
    assert waited == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    router.answered(bad)
    assert router.pick(target) == bad
