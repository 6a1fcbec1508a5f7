"""Checks of the bodies of `/v1/responses` and `/v1/messages`: text and functions only, nothing kept by the engine.

Numbers and unknown fields are left to `body_checks`, schemas to `prompt_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.gateway.members import Members
from serving.gateway.prompt_checks import CACHE_BREAKPOINT, MAX_MESSAGES, MAX_TOOLS, check_schema, invalid

# The members are those of the SDKs' types; contents are checked by the type of each part.
_TEXT = Members("type", "text")
_OUTPUT_TEXT = Members(
    *("type", "text"),
    annotations=Members(
        *("type", "file_id", "filename", "container_id", "index", "start_index", "end_index", "title", "url")
    ),
    logprobs=Members("token", "bytes", "logprob", top_logprobs=Members("token", "bytes", "logprob")),
)
_TEXT_PARTS = {
    "input_text": Members("type", "text", prompt_cache_breakpoint=CACHE_BREAKPOINT),
    "output_text": _OUTPUT_TEXT,
    "text": _TEXT,
    "refusal": Members("type", "refusal"),
    "summary_text": _TEXT,
    "reasoning_text": _TEXT,
}
_CALL = ("type", "id", "call_id", "name", "namespace", "status")
_CALLER = Members("type", "caller_id", "tool_id")
_ITEMS = {
    "message": Members("type", "id", "role", "status", "phase", "content"),
    "function_call": Members(*_CALL, "arguments", "async", caller=_CALLER),
    "function_call_output": Members(*_CALL, "output", caller=_CALLER),
    "reasoning": Members("type", "id", "summary", "content", "encrypted_content", "status"),
}
_FUNCTION = Members(
    *("type", "name", "description", "parameters", "output_schema", "strict"),
    *("async", "allowed_callers", "defer_loading"),
)
_RESPONSES_SETTINGS = {
    "tool_choice": Members("type", "name", "mode", tools=Members("type", "name")),
    "text": Members("verbosity", format=Members("type", "name", "description", "schema", "strict")),
    "reasoning": Members("effort", "summary", "generate_summary", "context", "mode"),
}
_CACHE = Members("type", "ttl")
_CITATION = Members(
    *("type", "cited_text", "document_index", "document_title", "file_id", "start_char_index", "end_char_index"),
    *("start_page_number", "end_page_number", "start_block_index", "end_block_index", "search_result_index"),
    *("title", "source", "url", "encrypted_index"),
)
_INNER_BLOCKS = {"text": Members("type", "text", cache_control=_CACHE, citations=_CITATION)}
_BLOCKS = {
    **_INNER_BLOCKS,
    "tool_use": Members("type", "id", "name", "input", "toolset_name", cache_control=_CACHE, caller=_CALLER),
    "tool_result": Members("type", "tool_use_id", "content", "is_error", "toolset_name", cache_control=_CACHE),
    "thinking": Members("type", "thinking", "signature"),
}
_MESSAGE = Members("role", "content")
_TOOL = Members(
    *("type", "name", "description", "input_schema", "input_examples", "strict"),
    *("allowed_callers", "defer_loading", "eager_input_streaming"),
    cache_control=_CACHE,
)
_MESSAGES_SETTINGS = {
    "tool_choice": Members("type", "name", "disable_parallel_tool_use"),
    "output_config": Members("effort", format=Members("type", "schema")),
    "thinking": Members("type", "budget_tokens", "display"),
}


def check_responses(body: dict[str, Any]) -> None:
    """Check a body of `/v1/responses`. Raises: GatewayError 400 naming the place."""
    if body.get("background"):
        raise invalid("background", "is true; answers are not kept here, so nothing can be fetched later")
    for name in ("previous_response_id", "conversation", "prompt"):
        _check_unkept(body, name)
    _check_input(body.get("input"))
    for index, tool in enumerate(_tools(body)):
        if tool.get("type") != "function":
            raise invalid(f"tools[{index}].type", "must be function; no tools run here")
        _FUNCTION.check(tool, f"tools[{index}]")
        for name in ("parameters", "output_schema"):
            check_schema(tool.get(name), f"tools[{index}].{name}")
    _check_settings(body, _RESPONSES_SETTINGS)
    wanted = (body.get("text") or {}).get("format") if isinstance(body.get("text") or {}, dict) else None
    if isinstance(wanted, dict):
        check_schema(wanted.get("schema"), "text.format.schema")


def check_anthropic(body: dict[str, Any]) -> None:
    """Check a body of `/v1/messages`. Raises: GatewayError 400 naming the place."""
    if body.get("max_tokens") is None:
        raise invalid("max_tokens", "is missing; say how many tokens the answer may have")
    _check_unkept(body, "container")
    _check_list(body.get("messages"), "messages")
    _check_parts(body.get("system"), "system", _INNER_BLOCKS)
    for index, message in enumerate(body["messages"]):
        _MESSAGE.check(message, f"messages[{index}]")
        _check_parts(message.get("content"), f"messages[{index}].content", _BLOCKS)
    for index, tool in enumerate(_tools(body)):
        if tool.get("type", "custom") != "custom":
            raise invalid(f"tools[{index}].type", "must be custom; no tools run here")
        _TOOL.check(tool, f"tools[{index}]")
        check_schema(tool.get("input_schema"), f"tools[{index}].input_schema")
    _check_settings(body, _MESSAGES_SETTINGS)
    _check_output_config(body.get("output_config"))


def _check_unkept(body: dict[str, Any], name: str) -> None:
    if body.get(name) is not None:
        raise invalid(name, "refers to something kept; nothing is kept here, send the whole conversation")


def _check_settings(body: dict[str, Any], known: Mapping[str, Members]) -> None:
    for name, members in known.items():
        if name in body:
            members.check(body[name], name)


def _check_output_config(given: Any) -> None:
    if given is None:
        return
    wanted = given.get("format") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(wanted or {}, dict):
        raise invalid("output_config", "must be an object; its format too")
    check_schema((wanted or {}).get("schema"), "output_config.format.schema")


def _check_input(given: Any) -> None:
    if isinstance(given, str):
        if not given.strip("\0"):
            raise invalid("input", "holds no text; write something")
    else:
        _check_list(given, "input")
        for index, item in enumerate(given if isinstance(given, list) else ()):
            kind = item.get("type", "message")
            members = _ITEMS.get(kind) if isinstance(kind, str) else None
            if members is None:
                raise invalid(f"input[{index}].type", f"is {kind!r:.40}; it must be one of {', '.join(sorted(_ITEMS))}")
            members.check(item, f"input[{index}]")
            for name in ("content", "output", "summary"):
                _check_parts(item.get(name), f"input[{index}].{name}", _TEXT_PARTS)


def _check_list(given: Any, param: str) -> None:
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MESSAGES:
        raise invalid(param, f"must be a list of 1 to {MAX_MESSAGES} messages")
    if not all(isinstance(item, dict) for item in given):
        raise invalid(param, "must hold objects only")


def _check_parts(content: Any, param: str, known: Mapping[str, Members]) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid(param, "must be text or a list of parts")
    for index, part in enumerate(content):
        members = known.get(str(part.get("type"))) if isinstance(part, dict) else None
        if members is None:
            raise invalid(param, f"may hold {', '.join(sorted(known))} only; no model here takes images or files")
        members.check(part, f"{param}[{index}]")
        if "content" in part:
            _check_parts(part["content"], f"{param}[{index}].content", _INNER_BLOCKS)


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools") or []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS or not all(isinstance(tool, dict) for tool in tools):
        raise invalid("tools", f"must be a list of at most {MAX_TOOLS} tools")
    return tools
