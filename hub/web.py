"""The edge of the hub's HTTP: context of a request, who is asking, and errors as RFC 9457 problem+json.

Below /v1 errors take OpenAI's shape (`hub.openai_envelope`).
It leaves authorisation to the services (they take an Actor) and pages to `marketplace_ui`.
"""

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from flask import Response, current_app, g, jsonify, request
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from hub.actor import Actor, Role
from hub.clock import Clock
from hub.database import Sessions
from hub.errors import GuanmoError, InvalidValueError, NotSignedInError
from hub.ids import new_id
from hub.openai_envelope import PREFIX, envelope, render_fields, render_refusal
from hub.outages import explain_outage
from hub.request import StrictRequest
from hub.secrets import Secrets
from hub.settings import Settings
from registry.store import FolderStore
from serving import contract

SESSION_COOKIE = "guanmo_session"
Message = TypeVar("Message")
Authenticate = Callable[[Session, str, datetime], Actor | None]


class Body(BaseModel):
    """Base of every request body, query and path: strict types, unknown names refused."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


class Query(BaseModel):
    """Base of query strings and paths, where numbers arrive as text; unknown names refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True)
class Context:
    """What every endpoint works with, built once in `create_api`."""

    settings: Settings
    secrets: Secrets
    sessions: Sessions
    store: FolderStore
    clock: Clock
    authenticate: Authenticate


def context() -> Context:
    """Return the application's context."""
    found: Context = current_app.extensions["guanmo"]
    return found


def request_language() -> str:
    """Return `zh` or `en`: cookie first, then Accept-Language; Chinese when neither says."""
    chosen = request.cookies.get("guanmo_language") or request.accept_languages.best_match(["zh", "en"])
    return chosen if chosen in ("zh", "en") else "zh"


def find_actor() -> Actor | None:
    """Return who is asking, by `Authorization: Bearer` or by the session cookie; None for a stranger."""
    if "actor" not in g:
        token = _read_bearer() or request.cookies.get(SESSION_COOKIE, "")
        g.actor = None
        if token:
            with context().sessions.read() as session:
                g.actor = context().authenticate(session, token, context().clock())
    found: Actor | None = g.actor
    return found


def current_actor(*roles: Role) -> Actor:
    """Return who is asking; a person of one of the roles, where any are given.

    Raises:
        NotSignedInError: nobody is signed in.
        ForbiddenError: the person has none of the roles.
    """
    actor = find_actor()
    if actor is None:
        raise NotSignedInError(
            "Sign in first: POST /api/v1/sessions, then send 'Authorization: Bearer <token>'.",
            "请先登录。",
        )
    if roles:
        actor.require(*roles)
    return actor


def require_internal(role: str) -> None:
    """Pass if the caller is our own process of that role (`pool`, `gateway`, `worker`).

    Raises:
        NotSignedInError: the bearer token is not that role's.
    """
    if not hmac.compare_digest(_read_bearer().encode(), context().secrets[f"{role}.token"].encode()):
        raise NotSignedInError(f"This address is for the {role} process; its bearer token did not match.", "内部接口。")


def read_message(kind: type[Message]) -> Message:
    """Return the request's body as a contract message.

    Raises:
        InvalidValueError: names the field that breaks the contract.
    """
    try:
        return contract.loads(kind, request.get_data())
    except contract.ContractError as error:
        raise InvalidValueError(str(error), f"消息不符合约定：{error}", field=error.field) from error


def prepare_request() -> None:
    """Refuse what no handler takes, before any handler runs. Raises: `hub.request`'s errors."""
    cast(StrictRequest, request).prepare()


def request_id() -> str:
    """Return this request's id, made on first use and sent back as `x-request-id`."""
    if "request_id" not in g:
        g.request_id = new_id("req")
    found: str = g.request_id
    return found


def render_problem(error: GuanmoError) -> Response:
    """Return problem+json of a coded error. Source: RFC 9457."""
    language = request_language()
    body: dict[str, Any] = {
        "type": f"/errors/{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error.text(language),
        "code": error.code,
        "request_id": request_id(),
    }
    if error.field:
        body["field"] = error.field
    body.update(error.extra)
    return _as_problem(body, error.status)


def render_validation(error: ValidationError) -> Response:
    """Return every field error of a request body at once, each with its pointer."""
    if request.path.startswith(PREFIX):
        return render_fields(error.errors(include_url=False, include_context=False, include_input=False))
    errors = [
        {"pointer": "/" + "/".join(str(part) for part in item["loc"]), "code": item["type"], "detail": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    detail = "; ".join(f"{item['pointer']}: {item['detail']}" for item in errors)
    body = {
        "type": "/errors/invalid_value",
        "title": "invalid value",
        "status": 422,
        "detail": detail,
        "code": "invalid_value",
        "request_id": request_id(),
        "errors": errors,
    }
    return _as_problem(body, 422)


def read_cause(error: Exception) -> Exception:
    """Return the coded refusal where the database was full, busy or away, and log it; else the error itself."""
    outage = explain_outage(error)
    if outage is not None:
        logging.getLogger("hub").error("request %s: %s", request_id(), outage.code, exc_info=error)
    return outage or error


def render_unexpected(error: Exception) -> Response:
    """The top handler: log the cause, tell the client only the request id."""
    error = read_cause(error)
    if request.path.startswith(PREFIX):
        return _render_for_openai(error)
    if isinstance(error, GuanmoError):
        return render_problem(error)
    if isinstance(error, RecursionError):
        return _describe_problem(
            400, "invalid_value", "invalid value", "A value is nested too deeply; send a flat one."
        )
    if isinstance(error, HTTPException):
        return _render_http(error)
    logging.getLogger("hub").exception("request %s failed", request_id(), exc_info=error)
    return _describe_problem(500, "internal", "internal error", None)


def _render_for_openai(error: Exception) -> Response:
    """The same top handler for OpenAI clients, whom the gateway passed on."""
    if isinstance(error, GuanmoError):
        return render_refusal(error)
    if isinstance(error, HTTPException):
        return _render_missing(error)
    if isinstance(error, RecursionError):
        return envelope(400, "A value is nested too deeply; send a flat one.", code="invalid_value", retry=False)
    logging.getLogger("hub").exception("request %s failed", request_id(), exc_info=error)
    text = f"the hub failed; quote the request id {request_id()} to the operator"
    return envelope(500, text, code="internal_error", retry=True)


def _render_missing(error: HTTPException) -> Response:
    status = error.code or 500
    if status in (404, 405):
        text = f"there is no route {request.method} {request.path}"
        return envelope(404, text, code="unknown_url", retry=False)
    if isinstance(error, RequestEntityTooLarge):
        text = f"the body is larger than {request.max_content_length} bytes; send less at once"
        return envelope(413, text, code="body_too_large", retry=False)
    return envelope(status, error.description or error.name, code=None, retry=status >= 500)


def _render_http(error: HTTPException) -> Response:
    detail = error.description
    if isinstance(error, RequestEntityTooLarge):
        detail = f"The body is larger than {request.max_content_length} bytes; send less at once."
    name = error.name or "error"
    response = _describe_problem(error.code or 500, name.lower().replace(" ", "_"), name, detail)
    for header, value in error.get_headers():
        if header in ("Allow", "Retry-After"):
            response.headers[header] = value
    return response


def _describe_problem(status: int, code: str, title: str, detail: str | None) -> Response:
    told = {} if detail is None else {"detail": detail}
    kind = "about:blank" if status == 500 else f"/errors/{code}"
    body = {"type": kind, "title": title, "status": status, **told, "code": code, "request_id": request_id()}
    return _as_problem(body, status)


def _as_problem(body: dict[str, Any], status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    response.content_type = "application/problem+json"
    return response


def _read_bearer() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
