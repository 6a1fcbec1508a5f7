"""Checks of the bodies of `/v1/responses` and `/v1/messages`: text and functions only, nothing kept by the engine.

Numbers and unknown fields are left to `body_checks`, schemas to `prompt_checks`.
"""

from __future__ import annotations

from typing import Any

from serving.gateway.prompt_checks import MAX_MESSAGES, MAX_TOOLS, check_schema, invalid

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"})
_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})
_BLOCKS = frozenset({"text", "tool_use", "tool_result", "thinking"})


def check_responses(body: dict[str, Any]) -> None:
    """Check a body of `/v1/responses`. Raises: GatewayError 400 naming the place."""
    if body.get("background"):
        raise invalid("background", "is true; answers are not kept here, so nothing can be fetched later")
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name) is not None:
            raise invalid(name, "refers to something kept; nothing is kept here, send the whole conversation as input")
    _check_input(body.get("input"))
    for index, tool in enumerate(_tools(body)):
        if tool.get("type") != "function":
            raise invalid(f"tools[{index}].type", "must be function; no tools run here")
        check_schema(tool.get("parameters"), f"tools[{index}].parameters")
    wanted = (body.get("text") or {}).get("format") if isinstance(body.get("text") or {}, dict) else None
    if isinstance(wanted, dict):
        check_schema(wanted.get("schema"), "text.format.schema")


def check_anthropic(body: dict[str, Any]) -> None:
    """Check a body of `/v1/messages`. Raises: GatewayError 400 naming the place."""
    if body.get("max_tokens") is None:
        raise invalid("max_tokens", "is missing; say how many tokens the answer may have")
    _check_list(body.get("messages"), "messages")
    _check_parts(body.get("system"), "system", frozenset({"text"}))
    for index, message in enumerate(body["messages"]):
        _check_parts(message.get("content"), f"messages[{index}].content", _BLOCKS)
    for index, tool in enumerate(_tools(body)):
        if tool.get("type", "custom") != "custom":
            raise invalid(f"tools[{index}].type", "must be custom; no tools run here")
        check_schema(tool.get("input_schema"), f"tools[{index}].input_schema")
    _check_output_config(body.get("output_config"))


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
            if kind not in _ITEMS:
                raise invalid(f"input[{index}].type", f"is {kind!r:.40}; it must be one of {', '.join(sorted(_ITEMS))}")
            for name in ("content", "output", "summary"):
                _check_parts(item.get(name), f"input[{index}].{name}", _TEXT_PARTS)


def _check_list(given: Any, param: str) -> None:
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MESSAGES:
        raise invalid(param, f"must be a list of 1 to {MAX_MESSAGES} messages")
    if not all(isinstance(item, dict) for item in given):
        raise invalid(param, "must hold objects only")


def _check_parts(content: Any, param: str, known: frozenset[str]) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid(param, "must be text or a list of parts")
    for part in content:
        if not isinstance(part, dict) or str(part.get("type")) not in known:
            raise invalid(param, f"may hold {', '.join(sorted(known))} only; no model here takes images or files")
        _check_parts(part.get("content"), param, frozenset({"text"}))


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools") or []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS or not all(isinstance(tool, dict) for tool in tools):
        raise invalid("tools", f"must be a list of at most {MAX_TOOLS} tools")
    return tools
