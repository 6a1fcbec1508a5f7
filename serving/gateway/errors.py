"""The coded error that reaches a caller, and its OpenAI envelope.

Each refusal is worded where its rule lives; this file knows only the shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_SDK_DECIDES = frozenset({408, 429, 500, 502, 503, 504})


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ErrorType(StrEnum):
    """The `type` values that OpenAI clients know."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    RATE_LIMIT = "rate_limit_error"
    QUOTA = "insufficient_quota"
    SERVER = "server_error"


@dataclass(frozen=True)
class Limit:
    """What a refused call ran into; None stands for what is not known, and for `resets_at` where waiting is no help.

    `name` ends in its unit unless it counts calls or is the hub's own word.
    """

    name: str
    value: float | None
    set_by: str
    used: float | None
    left: float | None = 0
    resets_at: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the envelope."""
        return {
            "limit": self.name,
            "limit_value": self.value,
            "set_by": self.set_by,
            "used": self.used,
            "left": self.left,
            "resets_at": self.resets_at,
        }


class GatewayError(Exception):
    """A refusal or failure with HTTP status, stable code, text and, where one exists, the parameter at fault.

    `limit` and `details` are extra fields of the envelope; `retry_after_s` becomes a header.
    `retry` tells SDKs whether to try again; they decide themselves where it is None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: ErrorType = ErrorType.INVALID_REQUEST,
        param: str | None = None,
        limit: Limit | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.param = param
        self.details = {**(limit.fields() if limit else {}), **(details or {})}
        self.retry_after_s = retry_after_s
        self.retry = retry if retry is not None else (None if status in _SDK_DECIDES else False)

    def envelope(self, request_id: str) -> bytes:
        """Return the OpenAI error body as JSON."""
        error = {
            "message": f"{self.message} (request {request_id})",
            "type": self.kind.value,
            "param": self.param,
            "code": self.code,
            **self.details,
        }
        return json.dumps({"error": error}, ensure_ascii=False).encode()

    def anthropic_envelope(self, request_id: str) -> bytes:
        """Return the error body as Anthropic's clients know it."""
        kind = _ANTHROPIC_KINDS.get(self.status, "api_error")
        error = {"type": kind, "message": f"{self.message} (request {request_id})", "code": self.code, **self.details}
        return json.dumps({"type": "error", "error": error, "request_id": request_id}, ensure_ascii=False).encode()

    def headers(self) -> list[tuple[str, str]]:
        """Return the response headers that belong to this error."""
        found = [] if self.retry_after_s is None else [("retry-after", str(self.retry_after_s))]
        if self.retry is not None:
            found.append(("x-should-retry", "true" if self.retry else "false"))
        return found


def unavailable(code: str, message: str, *, retry_after_s: int, limit: Limit | None = None) -> GatewayError:
    """Return a 503 that tells when to come back."""
    return GatewayError(503, code, message, kind=ErrorType.SERVER, retry_after_s=retry_after_s, limit=limit)
