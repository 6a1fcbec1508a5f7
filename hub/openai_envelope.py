"""Errors as an OpenAI client reads them: one envelope {message, type, param, code} with the status its SDK expects.

It leaves which errors there are to the rooms and problem+json to `hub.web`.
"""

from collections.abc import Sequence
from typing import Any

from flask import Response, jsonify

from hub.errors import GuanmoError

PREFIX = "/v1/"
_TYPES = {402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
_UNION_MARKS = frozenset({"int", "float", "str", "bool", "none"})


def envelope(
    status: int, message: str, *, code: str | None, param: str | None = None, retry: bool | None = None
) -> Response:
    """Return one error; `retry` False tells the SDK not to try again. Source: openai-python `_exceptions.py`."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    response = jsonify({"error": {"message": message, "type": kind, "param": param, "code": code}})
    response.status_code = status
    if retry is not None:
        response.headers["x-should-retry"] = "true" if retry else "false"
    return response


def render_refusal(error: GuanmoError) -> Response:
    """Return a coded error; what our own API calls 422 is 400 here, and no refusal is worth a retry by itself."""
    status = 400 if error.status == 422 else error.status
    # An SDK retries 409 by itself; a refusal of ours stays the same until somebody acts.
    return envelope(status, error.en, code=error.code, param=error.field, retry=status == 429 or status >= 500)


def render_fields(errors: Sequence[Any]) -> Response:
    """Return the field errors of a body or query in one message; `param` names the first."""
    told = [(_name_param(item["loc"]), str(item["msg"])) for item in errors]
    message = "; ".join(dict.fromkeys(f"{param or 'body'}: {text}" for param, text in told))
    return envelope(400, message, code="invalid_value", param=told[0][0] if told else None, retry=False)


def _name_param(location: Sequence[int | str]) -> str | None:
    """Members of a union name their branch (`int`, `literal['auto']`) in the location; a client never sent those."""
    parts = [str(part) for part in location if str(part) not in _UNION_MARKS and "[" not in str(part)]
    return ".".join(parts) or None
