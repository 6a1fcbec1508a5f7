"""S5-05: JSON schemas are bounded in size, depth, patterns and references; sound ones pass as they are."""

from typing import Any

import pytest

from serving.gateway.surfaces import CHAT, RESPONSES
from tests.gateway.bodies import refusal, send


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(40),
        {"type": "string", "pattern": "(a+)+" * 200},
        {"$ref": "http://169.254.169.254/"},
        {"$ref": "#"},
        {"enum": ["x" * 1000 for _ in range(100)]},
        {"patternProperties": {"(a+)+" * 200: {"type": "string"}}},
        {"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"},
        {"type": "string", "pattern": "(?:[a-z]{64}\\d{64}){64}"},
        {"patternProperties": {"^(x{99}){99}$": {}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"properties": {"x": {"$ref": "#/properties/x"}}},
        {},
        "text",
    ],
    ids=range(13),
)
def test_s5_05_schemas_are_bounded(schema: Any) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert refusal(CHAT, response_format=wanted).status == 400
    if schema not in ({}, "text"):
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        assert refusal(CHAT, tools=[tool]).status == 400


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{2}\d{6}(-\d{2,4}){0,8}$",
        r"^[\w.{}]{1,64}@[a-z.-]{1,255}$",
        r"^\d{4}-\d{2}-\d{2}T(\d{2}:){2}\d{2}$",
        r"\{9999999\}[{9}]{3}",
        "主轴{3,}",
        "a)(b{2}",
    ],
)
def test_s5_05_patterns_of_everyday_pass(pattern: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": pattern}}}
    assert send(CHAT, response_format=wanted)["response_format"] == wanted


@pytest.mark.parametrize("kind", ["grammar", "regex", "structural_tag", "choice", ""])
def test_s5_05_no_grammar_in_place_of_a_schema(kind: str) -> None:
    error = refusal(CHAT, response_format={"type": kind, kind: ""})
    assert (error.status, error.param) == (400, "response_format.type")
    assert refusal(RESPONSES, input="x", text={"format": {"type": kind, "grammar": ""}}).status == 400


def test_a_schema_may_come_back_to_itself_through_a_property() -> None:
    part = {"type": "object", "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}}}
    schema = {"type": "object", "properties": {"root": {"$ref": "#/$defs/part"}}, "$defs": {"part": part}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert send(CHAT, response_format=wanted)["response_format"] == wanted


def test_a_sound_schema_passes() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": nested(3)}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert send(CHAT, response_format=wanted)["response_format"] == wanted
