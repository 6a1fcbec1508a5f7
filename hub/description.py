"""Completes the described API: who may call, what is answered, how a refusal looks. Served as /api/openapi.json.

flask-openapi3 describes what comes in; what goes out is read here from the handlers' return types and statements. It
leaves pages and the internal messages between processes out.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from http import HTTPStatus
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.openapi import OpenAPI
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from hub.answers import ShapeOf
from hub.openai_envelope import PREFIX
from hub.web import SESSION_COOKIE

OPEN = frozenset(
    {
        ("post", "/api/v1/sessions"),
        ("post", "/api/v1/organisations"),
        ("get", "/api/v1/datasets/sample"),
        ("get", "/api/v1/filings"),
        ("get", "/api/v1/filings/standing/{weights_digest}"),
        ("get", "/api/v1/models"),
        ("get", "/api/v1/models/{organisation}/{name}"),
        ("get", "/api/v1/models/{organisation}/{name}/versions"),
        ("get", "/api/v1/offers"),
        ("get", "/api/v1/offers/{offer_id}"),
        ("get", "/api/v1/programmes"),
        ("get", "/api/v1/programmes/{code}/rules"),
        ("get", "/api/v1/providers"),
        ("get", "/api/v1/taxonomy"),
        ("get", "/api/v1/versions/{version_id}"),
    }
)
"""What a stranger may call; everything else needs a session token or, in a browser, the session's cookie."""
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Session token; below /v1 an API key."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "Set by signing in on a page."},
}
PROBLEM = {
    "title": "Problem",
    "description": "A refusal as RFC 9457 problem+json; further members name limits and what is left.",
    "type": "object",
    "required": ["type", "title", "status", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was refused, the limit, the next step."},
        "code": {"type": "string", "description": "Stable name of the rule."},
        "request_id": {"type": "string"},
        "field": {"type": "string", "description": "The field that the rule is about."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("pointer", "code", "detail")},
            },
        },
    },
}
ENVELOPE = {
    "title": "OpenAIError",
    "description": "A refusal in OpenAI's shape.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}
FILES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".pdf": "application/pdf",
    ".json": "application/json",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "/pack": "application/zip",
    "/export": "application/zip",
    "/events": "text/event-stream",
}
_REFS = "#/components/schemas/{model}"


class DescribedApi(OpenAPI):
    """The application, whose description says also what comes back."""

    def register_api(self, api: APIBlueprint, **options: Any) -> None:
        """Take a room's endpoints in; two rooms may share a path (the library would keep the last one's methods)."""
        known = {path: self.paths[path] for path in api.paths if path in self.paths}
        super().register_api(api, **options)
        for path, item in known.items():
            # A copy: the items belong to the rooms' blueprints, which other applications of this process share.
            more = {method: getattr(item, method) for method in item.model_fields_set}
            self.paths[path] = self.paths[path].model_copy(update=more)

    def generate_spec_json(self) -> None:
        """Build the description once, when it is first asked for."""
        super().generate_spec_json()  # type: ignore[no-untyped-call]  # flask-openapi3 has no types here
        schemas: dict[str, Any] = self.spec_json["components"]["schemas"]
        schemas.pop(self.validation_error_model.__name__, None)
        schemas |= {"Problem": PROBLEM, "OpenAIError": ENVELOPE}
        self.spec_json["components"]["securitySchemes"] = SCHEMES
        handlers = dict(_list_handlers(self))
        for path, item in self.spec_json["paths"].items():
            for method, operation in item.items():
                is_open = (method, path) in OPEN
                operation["security"] = [] if is_open else [{"bearer": []}, {"cookie": []}]
                operation["responses"] = describe_answers(path, handlers[method, path], schemas)


def describe_answers(path: str, handler: Callable[..., Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the responses of an operation; named shapes go into `schemas`.

    Raises:
        ValueError: two shapes that differ have one name.
    """
    kind = get_type_hints(handler, include_extras=True).get("return", dict)
    shape = get_args(kind)[0] if get_origin(kind) is tuple else kind
    content = _describe_content(path, shape, schemas)
    found: dict[str, Any] = {
        str(status): {"description": HTTPStatus(status).phrase, **({} if status == 204 else {"content": content})}
        for status in _list_statuses(handler)
    }
    media, name = ("application/json", "OpenAIError") if path.startswith(PREFIX) else _PROBLEM_JSON
    refused = {media: {"schema": {"$ref": _REFS.format(model=name)}}}
    return found | {"default": {"description": "Refused; `code` names the rule.", "content": refused}}


_PROBLEM_JSON = ("application/problem+json", "Problem")


def _describe_content(path: str, shape: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if get_origin(shape) is Annotated:
        shape = next(extra.shape for extra in get_args(shape) if isinstance(extra, ShapeOf))
    if isinstance(shape, type) and issubclass(shape, Response):
        media = next((media for ending, media in FILES.items() if path.endswith(ending)), "application/octet-stream")
        return {media: {"schema": {"type": "string", "format": "binary"}}}
    if not is_typeddict(get_origin(shape) or shape) and not is_dataclass(shape):
        return {"application/json": {"schema": {"type": "object"}}}
    found = TypeAdapter(shape).json_schema(ref_template=_REFS, mode="serialization")
    # `Items[OrderView]` is called Items_OrderView.
    called = "_".join(part.__name__ for part in (get_origin(shape) or shape, *get_args(shape)))
    for name, schema in {**found.pop("$defs", {}), called: found}.items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two shapes are called {name}; rename one")
    return {"application/json": {"schema": {"$ref": _REFS.format(model=called)}}}


def _list_handlers(app: OpenAPI) -> Iterator[tuple[tuple[str, str], Callable[..., Any]]]:
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<path:", "<").replace("<int:", "<").replace("<", "{").replace(">", "}")
        for method in rule.methods or ():
            yield (method.lower(), path), inspect.unwrap(app.view_functions[rule.endpoint])


def _list_statuses(handler: Callable[..., Any]) -> list[int]:
    """Return the statuses that a handler's own return statements name; 200 where they name none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(handler)))
    # Below the last part of the answer, because it may be a choice: `201 if … else 202`.
    found = {
        part.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
        for part in ast.walk(node.value.elts[-1])
        if isinstance(part, ast.Constant)
    }
    return sorted(status for status in found if isinstance(status, int)) or [200]
