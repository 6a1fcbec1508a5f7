"""Checks of messages, tools and schemas: only known members, only text, bounded in number, size and depth.

Numbers and switches are left to `body_checks`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from serving.gateway.errors import GatewayError
from serving.gateway.members import Members

MAX_PROMPTS = 64
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_PATTERN_CHARS = 512
MAX_PATTERN_STATES = 4096
_PATTERN_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(?P<least>\d{1,9})(?:,(?P<most>\d{1,9})?)?\}|.", re.DOTALL)
_CALLED = Members("name", "arguments")
# Contents are checked by the type of each part.
_MESSAGE = Members(
    *("role", "content", "name", "tool_call_id", "refusal", "reasoning_content"),
    tool_calls=Members("id", "type", "index", function=_CALLED, custom=Members("name", "input")),
    audio=Members("id"),
    function_call=_CALLED,
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
CACHE_BREAKPOINT = Members("mode", "ttl")
_PARTS = {
    "text": Members("type", "text", prompt_cache_breakpoint=CACHE_BREAKPOINT),
    "refusal": Members("type", "refusal"),
}
_TOOL = Members("type", function=Members("name", "description", "parameters", "strict"))
_NAME = Members("name")
_TOOL_CHOICE = Members(
    "type",
    function=_NAME,
    custom=_NAME,
    allowed_tools=Members("mode", tools=Members("type", function=_NAME, custom=_NAME)),
)
_FORMATS = {
    "text": Members("type"),
    "json_object": Members("type"),
    "json_schema": Members("type", json_schema=Members("name", "description", "schema", "strict")),
}


def invalid(param: str, text: str) -> GatewayError:
    """Return the refusal of a value."""
    return GatewayError(400, "invalid_value", f"{param} {text}", param=param)


def check_messages(messages: Any) -> None:
    """Check a conversation. Raises: GatewayError 400 naming the place."""
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise invalid("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
    says_something = False
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if not isinstance(message, dict):
            raise invalid(param, "must be an object with role and content")
        _MESSAGE.check(message, param)
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise invalid(f"{param}.role", f"is {role!r:.40}; it must be one of {', '.join(sorted(_ROLES))}")
        says_something |= _check_content(message.get("content"), f"{param}.content") or bool(message.get("tool_calls"))
    if not says_something:
        raise invalid("messages", "hold no text; write something")


def check_schemas(body: dict[str, Any]) -> None:
    """Check tools, tool_choice and response_format. Raises: GatewayError 400 naming the place."""
    tools = body.get("tools")
    if tools is not None:
        if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
            raise invalid("tools", f"must be a list of at most {MAX_TOOLS} tools")
        for index, tool in enumerate(tools):
            _check_tool(tool, f"tools[{index}]")
    _TOOL_CHOICE.check(body.get("tool_choice"), "tool_choice")
    wanted = body.get("response_format")
    if wanted is not None:
        _check_format(wanted)


def _check_content(content: Any, param: str) -> bool:
    """Return whether there is any text in it."""
    if content is None:
        return False
    if isinstance(content, str):
        return bool(content.strip("\0"))
    parts, found = content if isinstance(content, list) else [content], False
    for index, part in enumerate(parts):
        known = _PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if known is None or not isinstance(part.get(part["type"]), str):
            raise invalid(param, "must be text or a list of text parts; no model here takes images, audio or files")
        known.check(part, f"{param}[{index}]")
        found |= bool(part[part["type"]].strip("\0"))
    return found


def _check_tool(tool: Any, param: str) -> None:
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        raise invalid(param, "must be an object of type function")
    _TOOL.check(tool, param)
    check_schema(tool["function"].get("parameters"), f"{param}.function.parameters")


def _check_format(wanted: Any) -> None:
    kind = str(wanted.get("type")) if isinstance(wanted, dict) else ""
    if kind not in _FORMATS:
        raise invalid("response_format.type", f"must be one of {', '.join(_FORMATS)}")
    _FORMATS[kind].check(wanted, "response_format")
    if kind != "json_schema":
        return
    shape = wanted.get("json_schema")
    if not isinstance(shape, dict) or not isinstance(shape.get("schema"), dict) or not shape["schema"]:
        raise invalid("response_format.json_schema", "must be an object with a schema")
    check_schema(shape["schema"], "response_format.json_schema.schema")


def check_schema(schema: Any, param: str) -> None:
    """Bound size, depth and patterns, and let references point inside only. Raises: GatewayError 400."""
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise invalid(param, "must be a JSON schema")
    if len(json.dumps(schema, ensure_ascii=False)) > MAX_SCHEMA_BYTES:
        raise invalid(param, f"is larger than {MAX_SCHEMA_BYTES} bytes; simplify it")
    level: list[Any] = [schema]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise invalid(param, f"is nested deeper than {MAX_SCHEMA_DEPTH} levels; simplify it")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                _check_node(node, param)
                _check_loop(node, schema, param)
            below.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        level = [node for node in below if isinstance(node, dict | list)]


def _check_node(node: dict[str, Any], param: str) -> None:
    pattern, keyed, reference = node.get("pattern"), node.get("patternProperties"), node.get("$ref")
    for each in (pattern, *(keyed if isinstance(keyed, dict) else ())):
        if isinstance(each, str):
            _check_pattern(each, param)
    if isinstance(reference, str) and (not reference.startswith("#/") or reference == "#"):
        raise invalid(param, f"refers to {reference!r:.60}; a $ref may only point to a definition inside (#/…)")


def _check_pattern(pattern: str, param: str) -> None:
    """Engines compile a pattern to an automaton, in which a counted repetition stands as often as it counts."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise invalid(param, f"has a pattern of more than {MAX_PATTERN_CHARS} characters; shorten it")
    groups, last = [0], 0
    for piece in _PATTERN_PIECE.finditer(pattern):
        count = piece["most"] or piece["least"]
        if count is not None:
            groups[-1] += last * (int(count) - 1)
            last *= int(count)
        elif piece[0] == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        else:
            last = 0 if piece[0] == "(" else 1
            groups.extend([0] if piece[0] == "(" else [])
            groups[-1] += last
    if sum(groups) > MAX_PATTERN_STATES:
        raise invalid(param, f"has a pattern whose repetitions add up to {sum(groups):.2g} pieces; count less")


def _check_loop(node: dict[str, Any], schema: dict[str, Any], param: str) -> None:
    """References that lead to nothing but references mean nothing; one that comes back through a property is a tree."""
    seen: set[str] = set()
    found: Any = node
    while isinstance(found, dict) and isinstance(reference := found.get("$ref"), str):
        if reference in seen:
            raise invalid(param, f"refers to {reference!r:.60}, which leads back to itself; point it to a definition")
        seen.add(reference)
        found = _follow(schema, reference)


def _follow(schema: Any, reference: str) -> Any:
    """What a reference points to inside the schema; None for nothing. Source: RFC 6901."""
    for part in reference.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        schema = schema.get(name) if isinstance(schema, dict) else None
    return schema
