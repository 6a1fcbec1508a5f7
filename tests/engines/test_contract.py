"""The same questions to stock vLLM and to the fake that the gateway's tests stand on; the pool's fake in its own file.

The last test of the file ends the real engine.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.gateway.engine import Engine
from tests.gateway.samples import make_key, make_snapshot
from tests.gateway.world import running_world, wait_for
from tests.pool.real_engine import RealEngine, running_engine
from tests.pool.tiny_models import make_talker

TOKENS, MANY = 12, 1000
TOO_LONG = "spindle " * 2000
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "主轴 bearing worn"}]}
TEXT: dict[str, Any] = {"prompt": "spindle bearing"}
COMMON = {"model": "base", "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
WAYS = [("chat/completions", CHAT), ("completions", TEXT)]
Chunk = dict[str, Any]


class Asked:
    """An engine under test; `fake` is None when it is vLLM."""

    def __init__(self, url: str, fake: Engine | None = None, real: RealEngine | None = None) -> None:
        self.url, self.fake, self.real = url, fake, real

    def post(self, path: str, body: Chunk) -> httpx.Response:
        return httpx.post(self.url + path, json=COMMON | body, timeout=120)

    def stream(self, path: str, body: Chunk) -> tuple[list[Chunk], list[str]]:
        """Return the parsed events and every line of a stream."""
        answer = self.post(path, body | {"stream": True})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.text.splitlines() if line]
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")], lines

    def counter(self, name: str) -> float:
        """Return one number of its metrics."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"vllm:{name} ", f"vllm:{name}{{")))


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture(scope="module")
def vllm(talker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with running_engine(talker, tmp_path_factory.mktemp("vllm")) as real:
        yield Asked(real.url, real=real)


@pytest.fixture
def ending_vllm(talker: Path, tmp_path: Path) -> Iterator[Asked]:
    with running_engine(talker, tmp_path) as real:
        yield Asked(real.url, real=real)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Asked]:
    with running_world(make_snapshot(keys=(make_key(1),), models=()), tmp_path) as world:
        engine = world.engines[0]
        engine.tokens, engine.names = TOKENS, frozenset(("base",))
        yield Asked(world.replica_urls[0], engine)


@pytest.fixture(params=["fake", pytest.param("vllm", marks=[pytest.mark.engine, pytest.mark.timeout(600)])])
def engine(request: pytest.FixtureRequest) -> Asked:
    found: Asked = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["fake", pytest.param("ending_vllm", marks=[pytest.mark.engine, pytest.mark.timeout(600)])])
def drained(request: pytest.FixtureRequest) -> Asked:
    """An engine that this test may end."""
    found: Asked = request.getfixturevalue(request.param)
    return found


def text_of(chunk: Chunk) -> str:
    said = [choice.get("delta", {}).get("content") or choice.get("text") or "" for choice in chunk["choices"]]
    return "".join(said)


@pytest.mark.parametrize(
    ("path", "body", "part"), [("chat/completions", CHAT, "message"), ("completions", TEXT, "text")]
)
def test_a_plain_answer(engine: Asked, path: str, body: Chunk, part: str) -> None:
    answer = engine.post(f"/v1/{path}", body)
    whole = answer.json()
    assert answer.status_code == 200
    assert {"id", "object", "created", "model", "choices", "usage"} <= whole.keys()
    assert whole["model"] == "base"
    (choice,) = whole["choices"]
    assert (choice["index"], choice["finish_reason"] in ("stop", "length")) == (0, True)
    assert choice["message"]["content"] if body is CHAT else choice["text"]
    usage = whole["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (TOKENS, usage["prompt_tokens"] + TOKENS)
    assert usage["prompt_tokens_details"] is None or usage["prompt_tokens_details"]["cached_tokens"] >= 0


@pytest.mark.parametrize(("path", "body"), WAYS)
def test_a_stream_tells_its_usage_with_every_event(engine: Asked, path: str, body: Chunk) -> None:
    chunks, lines = engine.stream(f"/v1/{path}", body)
    assert lines[-1] == "data: [DONE]"
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert (chunks[-1]["choices"], counts[-1]) == ([], TOKENS)
    assert len({chunk["usage"]["prompt_tokens"] for chunk in chunks}) == 1
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(ends) == 1
    assert "".join(map(text_of, chunks))


@pytest.mark.parametrize(("path", "body"), WAYS)
def test_token_ids_come_once_each_and_the_prompts_with_the_first_event(engine: Asked, path: str, body: Chunk) -> None:
    chunks, _ = engine.stream(f"/v1/{path}", body | {"return_token_ids": True})
    said = [token for chunk in chunks for choice in chunk["choices"] for token in choice.get("token_ids") or ()]
    assert len(said) == TOKENS
    first = chunks[0]
    prompt = first.get("prompt_token_ids") or first["choices"][0].get("prompt_token_ids")
    assert len(prompt) == chunks[-1]["usage"]["prompt_tokens"]
    assert all(isinstance(token, int) for token in (*prompt, *said))


@pytest.mark.parametrize("kept", [1, 5, TOKENS - 1])
def test_a_prompt_of_ids_goes_on_with_the_same_text(engine: Asked, kept: int) -> None:
    chunks, _ = engine.stream("/v1/completions", TEXT | {"return_token_ids": True})
    prompt = chunks[0]["choices"][0]["prompt_token_ids"]
    pieces = [(text_of(chunk), choice["token_ids"]) for chunk in chunks for choice in chunk["choices"]]
    said = [token for _, ids in pieces for token in ids]
    more = {"prompt": prompt + said[:kept], "max_tokens": TOKENS - kept}
    rest, _ = engine.stream("/v1/completions", more | {"return_token_ids": True})
    usage = rest[-1]["usage"]
    assert (usage["completion_tokens"], usage["prompt_tokens"]) == (TOKENS - kept, len(prompt) + kept)
    assert [token for chunk in rest for choice in chunk["choices"] for token in choice["token_ids"]] == said[kept:]
    assert "".join(text for text, _ in pieces).endswith("".join(map(text_of, rest)))


def test_counters_move_by_what_the_answers_told(engine: Asked) -> None:
    before = engine.counter("generation_tokens_total")
    engine.stream("/v1/completions", TEXT)
    engine.post("/v1/chat/completions", CHAT)
    wait_for(lambda: engine.counter("generation_tokens_total") == before + 2 * TOKENS)


def test_a_client_that_leaves_stops_the_work(engine: Asked) -> None:
    if engine.fake is not None:
        engine.fake.tokens, engine.fake.delay_s = 900, 0.005
    before, told = engine.counter("generation_tokens_total"), 0
    body = COMMON | TEXT | {"max_tokens": 900, "stream": True}
    with httpx.stream("POST", f"{engine.url}/v1/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            told = json.loads(line[6:])["usage"]["completion_tokens"] if line.startswith("data: {") else told
            if told >= 20:
                break
    wait_for(lambda: engine.counter("num_requests_running") == 0)
    made = engine.counter("generation_tokens_total") - before
    assert told <= made < 900


def test_a_name_that_it_does_not_serve(engine: Asked) -> None:
    answer = engine.post("/v1/chat/completions", CHAT | {"model": "lora-none"})
    assert answer.status_code == 404
    assert "model" in answer.text
    assert "does not exist" in answer.text


def test_a_prompt_beyond_its_context(engine: Asked) -> None:
    if engine.fake is not None:
        engine.fake.mode = "too-long"
    answer = engine.post("/v1/completions", {"prompt": TOO_LONG})
    assert answer.status_code == 400
    assert "maximum context length" in answer.json()["error"]["message"]


def test_a_generator_makes_no_embeddings(engine: Asked) -> None:
    answer = httpx.post(f"{engine.url}/v1/embeddings", json={"model": "base", "input": "x"}, timeout=60)
    assert answer.status_code in (400, 404, 405, 501)


def test_anthropics_dialect(engine: Asked) -> None:
    events, _ = engine.stream("/v1/messages", CHAT)
    types = [event["type"] for event in events]
    assert types[:2] == ["message_start", "content_block_start"]
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(types[2:-3]) == {"content_block_delta"}
    assert events[0]["message"]["usage"]["input_tokens"] >= 0
    usage = events[-2]["usage"]
    assert usage["output_tokens"] == TOKENS
    assert usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0) > 0
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_responses_dialect(engine: Asked) -> None:
    body = {"input": "spindle bearing", "max_output_tokens": TOKENS}
    asked = {"model": "base", "temperature": 0, "stream": True} | body
    answer = httpx.post(f"{engine.url}/v1/responses", json=asked, timeout=120)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    types = [event["type"] for event in events]
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert "response.output_text.delta" in types
    usage = events[-1]["response"]["usage"]
    assert usage["output_tokens"] == TOKENS
    assert usage["total_tokens"] == usage["input_tokens"] + TOKENS
    assert usage["input_tokens_details"]["cached_tokens"] >= 0


def test_an_engine_that_drains_finishes_what_runs_and_refuses_the_rest(drained: Asked) -> None:
    with reading(drained) as seen:
        begin_drain(drained)
        assert wait_for(lambda: ask_draining(drained), timeout_s=30) == 500
    assert seen[-1] == "data: [DONE]", seen[-3:]
    assert json.loads(seen[-2][6:])["usage"]["completion_tokens"] == MANY


def test_an_engine_whose_core_dies_says_so_before_done(engine: Asked) -> None:
    with reading(engine) as seen:
        kill_core(engine)
    assert seen[-1] == "data: [DONE]", seen[-3:]
    assert "error" in json.loads(seen[-2][6:]), seen[-3:]


@contextlib.contextmanager
def reading(engine: Asked) -> Iterator[list[str]]:
    """Read a long stream beside the test, from its first tokens to its end; yields its lines."""
    if engine.fake is not None:
        engine.fake.tokens, engine.fake.delay_s = MANY, 0.005
    seen: list[str] = []

    def read_lines() -> None:
        body = COMMON | TEXT | {"max_tokens": MANY, "stream": True}
        with httpx.stream("POST", f"{engine.url}/v1/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                seen.extend([line] if line else [])

    reader = threading.Thread(target=read_lines)
    reader.start()
    wait_for(lambda: len(seen) > 5, timeout_s=60)
    yield seen
    reader.join(60)


def begin_drain(engine: Asked) -> None:
    if engine.fake is not None:
        engine.fake.mode = "draining"
    elif engine.real is not None:
        os.kill(engine.real.pid, signal.SIGTERM)


def ask_draining(engine: Asked) -> int | None:
    """Return the status once new work is refused as the gateway knows it."""
    answer = engine.post("/v1/completions", TEXT | {"max_tokens": 1})
    return answer.status_code if "cannot schedule new futures" in answer.text else None


def kill_core(engine: Asked) -> None:
    if engine.fake is not None:
        engine.fake.mode = "error-now"
    elif engine.real is not None:
        for core in psutil.Process(engine.real.pid).children(recursive=True):
            os.kill(core.pid, signal.SIGKILL)
