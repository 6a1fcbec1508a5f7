"""Compares answers of the API with what its description says of them, key by key; unknown and missing keys fail.

It leaves calling to the tests; `watch_answers` compares whatever they call.
"""

import re
from typing import Any

from flask import Response, request
from flask_openapi3.openapi import OpenAPI

KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}


def watch_answers(app: OpenAPI) -> OpenAPI:
    """Let each JSON answer of an application fail the request that it is not described for; returns the same."""

    @app.after_request
    def compare(answer: Response) -> Response:
        if request.path.startswith("/api/v1/") and answer.status_code < 300 and answer.mimetype == "application/json":
            check_answer(app.api_doc, answer)
        return answer

    return app


def check_answer(described: Any, answer: Response) -> int:
    """Compare the answer of the request at hand; returns how many values were compared."""
    assert request.url_rule is not None
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", request.url_rule.rule)
    answers = described["paths"][path][request.method.lower()]["responses"]
    assert str(answer.status_code) in answers, (path, answer.status_code)
    schema = answers[str(answer.status_code)]["content"]["application/json"]["schema"]
    return check_shape(answer.get_json(), schema, described["components"]["schemas"], f"{request.method} {path}")


def check_shape(value: Any, schema: Any, schemas: Any, place: str) -> int:
    """Pass a value with exactly the described keys, all the way down; returns how many values were compared."""
    if "$ref" in schema:
        return check_shape(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, place)
    if "anyOf" in schema:
        return _check_any(value, schema["anyOf"], schemas, place)
    assert value in schema.get("enum", [value]), (place, value)
    assert value == schema.get("const", value), (place, value)
    if schema.get("type") == "array":
        return _check_array(value, schema, schemas, place)
    if schema.get("type") == "object":
        return _check_object(value, schema, schemas, place)
    if "type" in schema:
        assert isinstance(value, KINDS[schema["type"]]), (place, value)
        assert not isinstance(value, bool) or schema["type"] == "boolean", (place, value)
    return 1


def _check_any(value: Any, choices: list[Any], schemas: Any, place: str) -> int:
    refused = []
    for choice in choices:
        try:
            return check_shape(value, choice, schemas, place)
        except AssertionError as error:
            refused.append(str(error))
    raise AssertionError(f"{place}: none of the described forms fits: {'; '.join(refused)}")


def _check_array(value: Any, schema: Any, schemas: Any, place: str) -> int:
    assert isinstance(value, list), (place, value)
    if "prefixItems" in schema:
        assert len(value) == len(schema["prefixItems"]), (place, value)
        parts = zip(value, schema["prefixItems"], strict=True)
    else:
        parts = zip(value, [schema["items"]] * len(value), strict=True)
    return sum(check_shape(item, one, schemas, f"{place}[]") for item, one in parts)


def _check_object(value: Any, schema: Any, schemas: Any, place: str) -> int:
    assert isinstance(value, dict), (place, value)
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", False)
    assert known or rest, f"{place} is described as a bare object"
    missing, unknown = set(schema.get("required", ())) - set(value), set(value) - set(known)
    assert not missing, f"{place} lacks {sorted(missing)}"
    assert not unknown or rest, f"{place} also has {sorted(unknown)}"
    return sum(
        check_shape(one, known.get(name, rest), schemas, f"{place}.{name}") if known.get(name, rest) is not True else 1
        for name, one in value.items()
    )
