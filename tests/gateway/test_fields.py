"""Every field of the pinned OpenAI schema is forwarded or a documented no-op; anything else is named and refused."""

import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from openai.types import chat, completion_create_params, embedding_create_params, responses, shared_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_input_item_param

from serving.contract import SCOPE_IGNORE_EOS
from serving.gateway.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, SURFACES, Surface
from tests.gateway.bodies import ANTHROPIC, SAMPLES, refusal, send

SCHEMAS = {
    CHAT: chat_create_params.CompletionCreateParamsStreaming,
    COMPLETIONS: completion_create_params.CompletionCreateParamsStreaming,
    EMBEDDINGS: embedding_create_params.EmbeddingCreateParams,
}
TEXT = {"type": "text", "text": "x"}
CALLED: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CASES = [(surface, name) for surface, schema in SCHEMAS.items() for name in sorted(typing.get_type_hints(schema))]


def test_the_schemas_are_seen() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize(("surface", "name"), CASES, ids=lambda value: getattr(value, "name", value))
def test_each_field_of_the_sdk_is_forwarded_or_ignored_on_purpose(surface: Surface, name: str) -> None:
    fields: dict[str, Any] = {} if name == "model" else {name: SAMPLES[name]}
    if name == "logprobs" and surface is COMPLETIONS:
        fields = {"logprobs": 3}
    fields |= {"logprobs": True} if name == "top_logprobs" else {}
    fields |= {"stream": True} if name == "stream_options" else {}
    sent = send(surface, **fields)
    if name in surface.ignored:
        assert name not in sent
    elif name == "model":
        assert sent["model"] == "base"
    elif name == "max_completion_tokens":
        assert sent["max_tokens"] == 7
    elif name == "stream_options":
        assert sent[name] == {"include_usage": True, "continuous_usage_stats": True}
    else:
        assert sent[name] == fields[name]


FORBIDDEN = [
    "api_base",
    "base_url",
    "user_config",
    "extra_body",
    "lora_request",
    "kv_transfer_params",
    "vllm_xargs",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
    "priority",
    "cache_salt",
    "prompt_embeds",
    "guided_grammar",
    "structured_outputs",
    "return_token_ids",
    "ignore_eos ",
]


@pytest.mark.parametrize("surface", SCHEMAS, ids=lambda surface: surface.name)
@pytest.mark.parametrize("name", FORBIDDEN)
def test_s5_02_fields_of_the_engine_are_refused_by_name(surface: Surface, name: str) -> None:
    error = refusal(surface, **{name: 1})
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", name)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_s5_02_fields_of_the_engine_are_refused_at_depth(name: str) -> None:
    message = {"role": "user", "content": "x"}
    function = {"name": "f"}
    for fields, param in (
        ({"messages": [message | {name: 1}]}, f"messages[0].{name}"),
        ({"messages": [message | {"content": [TEXT, TEXT | {name: 1}]}]}, f"messages[0].content[1].{name}"),
        ({"messages": [message | {"tool_calls": [CALLED | {name: 1}]}]}, f"messages[0].tool_calls[0].{name}"),
        (
            {"messages": [message | {"tool_calls": [CALLED, CALLED | {"function": {name: 1}}]}]},
            f"messages[0].tool_calls[1].function.{name}",
        ),
        ({"tool_choice": {"type": "function", "function": {"name": "f", name: 1}}}, f"tool_choice.function.{name}"),
        ({"tools": [{"type": "function", "function": function, name: 1}]}, f"tools[0].{name}"),
        ({"tools": [{"type": "function", "function": function | {name: 1}}]}, f"tools[0].function.{name}"),
        ({"response_format": {"type": "json_object", name: 1}}, f"response_format.{name}"),
        ({"stream": True, "stream_options": {name: 1}}, f"stream_options.{name}"),
    ):
        error = refusal(CHAT, **fields)
        assert (error.status, error.code, error.param) == (400, "unknown_parameter", param)


def place_in_responses(name: str) -> list[tuple[dict[str, Any], str]]:
    """Return bodies of `/v1/responses` with one more member somewhere, and its path."""
    item: dict[str, Any] = {"role": "user", "content": "x"}
    text = {"type": "input_text", "text": "x"}
    said = {"type": "output_text", "text": "x", "annotations": [], "logprobs": []}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    told = {"type": "function_call_output", "call_id": "c", "output": "x"}
    thought: dict[str, Any] = {"type": "reasoning", "id": "r", "summary": []}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    wanted = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    more = {name: 1}
    return [
        ({"input": [item, item | more]}, f"input[1].{name}"),
        ({"input": [item | {"content": [text, text | more]}]}, f"input[0].content[1].{name}"),
        ({"input": [item | {"content": [said | {"logprobs": [more]}]}]}, f"input[0].content[0].logprobs[0].{name}"),
        ({"input": [call | more]}, f"input[0].{name}"),
        ({"input": [told | more]}, f"input[0].{name}"),
        ({"input": [told | {"output": [text | more]}]}, f"input[0].output[0].{name}"),
        ({"input": [thought | more]}, f"input[0].{name}"),
        ({"input": [thought | {"summary": [{"type": "summary_text"} | more]}]}, f"input[0].summary[0].{name}"),
        ({"input": "x", "tools": [tool, tool | more]}, f"tools[1].{name}"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "f"} | more}, f"tool_choice.{name}"),
        ({"input": "x", "text": more}, f"text.{name}"),
        ({"input": "x", "text": {"format": wanted | more}}, f"text.format.{name}"),
        ({"input": "x", "reasoning": {"effort": "low"} | more}, f"reasoning.{name}"),
    ]


def place_in_messages(name: str) -> list[tuple[dict[str, Any], str]]:
    """Return bodies of `/v1/messages` with one more member somewhere, and its path."""
    message: dict[str, Any] = {"role": "user", "content": "x"}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    more = {name: 1}
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"messages": [message, message | more]}, f"messages[1].{name}"),
        ({"messages": [message | {"content": [TEXT, TEXT | more]}]}, f"messages[0].content[1].{name}"),
        (
            {"messages": [message | {"content": [TEXT | {"cache_control": {"type": "ephemeral"} | more}]}]},
            f"messages[0].content[0].cache_control.{name}",
        ),
        ({"messages": [message | {"content": [use | more]}]}, f"messages[0].content[0].{name}"),
        ({"messages": [message | {"content": [result | more]}]}, f"messages[0].content[0].{name}"),
        (
            {"messages": [message | {"content": [TEXT, result | {"content": [TEXT | more]}]}]},
            f"messages[0].content[1].content[0].{name}",
        ),
        ({"system": [TEXT | more]}, f"system[0].{name}"),
        ({"tools": [tool, tool | more]}, f"tools[1].{name}"),
        ({"tool_choice": {"type": "auto"} | more}, f"tool_choice.{name}"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}} | more}}, f"output_config.format.{name}"),
        ({"output_config": more}, f"output_config.{name}"),
        ({"thinking": {"type": "disabled"} | more}, f"thinking.{name}"),
    ]
    return [(ANTHROPIC | fields, path) for fields, path in bodies]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_s5_02_fields_of_the_engine_are_refused_at_depth_by_the_named_surfaces(name: str) -> None:
    for surface, bodies in ((RESPONSES, place_in_responses(name)), (MESSAGES, place_in_messages(name))):
        for fields, path in bodies:
            error = refusal(surface, **fields)
            assert (error.status, error.code, error.param) == (400, "unknown_parameter", path)


def hold_item(item: dict[str, Any]) -> dict[str, Any]:
    return {"input": [item]}


def hold_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part]}]}


def hold_block(block: dict[str, Any]) -> dict[str, Any]:
    return ANTHROPIC | {"messages": [{"role": "user", "content": [block]}]}


OBJECTS: list[tuple[Surface, Any, str, Callable[[dict[str, Any]], dict[str, Any]]]] = [
    (CHAT, chat.ChatCompletionUserMessageParam, "", lambda each: {"messages": [SAMPLES["messages"][0], each]}),
    (CHAT, chat.ChatCompletionAssistantMessageParam, "", lambda each: {"messages": [SAMPLES["messages"][0], each]}),
    (CHAT, chat.ChatCompletionToolMessageParam, "", lambda each: {"messages": [SAMPLES["messages"][0], each]}),
    (
        CHAT,
        chat.ChatCompletionContentPartTextParam,
        "text",
        lambda each: {"messages": [{"role": "user", "content": [each]}]},
    ),
    (CHAT, chat.ChatCompletionNamedToolChoiceParam, "function", lambda each: {"tool_choice": each}),
    (CHAT, chat.ChatCompletionAllowedToolChoiceParam, "allowed_tools", lambda each: {"tool_choice": each}),
    (RESPONSES, responses.EasyInputMessageParam, "message", hold_item),
    (RESPONSES, responses.ResponseOutputMessageParam, "message", hold_item),
    (RESPONSES, responses.ResponseFunctionToolCallParam, "function_call", hold_item),
    (RESPONSES, response_input_item_param.FunctionCallOutput, "function_call_output", hold_item),
    (RESPONSES, responses.ResponseReasoningItemParam, "reasoning", hold_item),
    (RESPONSES, responses.ResponseInputTextParam, "input_text", hold_part),
    (RESPONSES, responses.ResponseOutputTextParam, "output_text", hold_part),
    (RESPONSES, responses.ResponseOutputRefusalParam, "refusal", hold_part),
    (RESPONSES, responses.FunctionToolParam, "function", lambda each: {"input": "x", "tools": [each]}),
    (RESPONSES, responses.ToolChoiceFunctionParam, "function", lambda each: {"input": "x", "tool_choice": each}),
    (RESPONSES, responses.ToolChoiceAllowedParam, "allowed_tools", lambda each: {"input": "x", "tool_choice": each}),
    (RESPONSES, responses.ResponseTextConfigParam, "", lambda each: {"input": "x", "text": each}),
    (
        RESPONSES,
        responses.ResponseFormatTextJSONSchemaConfigParam,
        "json_schema",
        lambda each: {"input": "x", "text": {"format": each}},
    ),
    (RESPONSES, shared_params.Reasoning, "", lambda each: {"input": "x", "reasoning": each}),
    (MESSAGES, anthropic.types.TextBlockParam, "text", hold_block),
    (MESSAGES, anthropic.types.ToolUseBlockParam, "tool_use", hold_block),
    (MESSAGES, anthropic.types.ToolResultBlockParam, "tool_result", hold_block),
    (MESSAGES, anthropic.types.ThinkingBlockParam, "thinking", hold_block),
    (MESSAGES, anthropic.types.ToolParam, "custom", lambda each: ANTHROPIC | {"tools": [each]}),
    (MESSAGES, anthropic.types.ToolChoiceToolParam, "tool", lambda each: ANTHROPIC | {"tool_choice": each}),
    (MESSAGES, anthropic.types.OutputConfigParam, "", lambda each: ANTHROPIC | {"output_config": each}),
    (MESSAGES, anthropic.types.ThinkingConfigEnabledParam, "enabled", lambda each: ANTHROPIC | {"thinking": each}),
]


@pytest.mark.parametrize(("surface", "schema", "kind", "hold"), OBJECTS, ids=[each[1].__name__ for each in OBJECTS])
def test_s5_02_every_member_that_the_sdks_write_passes(
    surface: Surface, schema: Any, kind: str, hold: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    members: dict[str, Any] = dict.fromkeys(typing.get_type_hints(schema))
    assert len(members) > 1
    given = members | ({"type": kind} if kind else {}) | ({"role": "user"} if "role" in members else {})
    given |= {"text": "x"} if given.get("type") in ("text", "input_text", "output_text") else {}
    assert send(surface, **hold(given)) is not None


def test_s5_02_what_the_schemas_leave_open_stays_open() -> None:
    anything = {"lora_request": {"api_base": [{"priority": 1}]}}
    schema = {"type": "object", "properties": anything, "x-note": "own"}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": anything}
    tools = [{"name": "f", "input_schema": schema, "input_examples": [anything]}]
    sent = send(MESSAGES, **hold_block(use), tools=tools, metadata=anything)
    assert (sent["messages"][0]["content"][0]["input"], sent["tools"]) == (anything, tools)
    functions = [{"type": "function", "name": "f", "parameters": schema, "output_schema": schema}]
    assert send(RESPONSES, input="x", tools=functions, metadata=anything)["tools"] == functions


def test_s5_02_lists_in_lists_are_no_way_around() -> None:
    error = refusal(CHAT, tool_choice=[[{"lora_request": 1}]])
    assert (error.status, error.code, error.param) == (400, "invalid_value", "tool_choice[0]")


def test_ignore_eos_needs_its_scope() -> None:
    error = refusal(CHAT, ignore_eos=True)
    assert (error.status, error.code, error.param) == (403, "scope_missing", "ignore_eos")
    assert send(CHAT, ("inference", SCOPE_IGNORE_EOS), ignore_eos=True)["ignore_eos"] is True
    assert refusal(EMBEDDINGS, ignore_eos=True).code == "unknown_parameter"


def test_what_does_nothing_is_documented() -> None:
    told = set(re.findall(r"`(\w+)`", (Path(__file__).parents[2] / "docs" / "gateway_fields.md").read_text()))
    assert [name for surface in SURFACES.values() for name in sorted(surface.ignored) if name not in told] == []
