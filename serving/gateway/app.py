"""Which path goes where, and the one place where errors become answers.

It holds no rule of its own; starting and stopping is left to `server`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable

from serving.gateway.completions import Completions
from serving.gateway.errors import ErrorType, GatewayError
from serving.gateway.exchange import ClientGoneError, Exchange
from serving.gateway.hub_proxy import HubProxy
from serving.gateway.metrics import Metrics
from serving.gateway.models import LIST_PATH, ModelList
from serving.gateway.surfaces import MESSAGES, SURFACES
from serving.gateway.view import CurrentView

_HUB_PATHS = ("/v1/files", "/v1/fine_tuning")
_NO_BACKEND = (
    "/v1/batches",
    "/v1/images",
    "/v1/audio",
    "/v1/moderations",
    "/v1/uploads",
    "/v1/videos",
)
_log = logging.getLogger(__name__)


class GatewayApp:
    """The callable that answers each request; it never raises."""

    def __init__(
        self,
        *,
        current: CurrentView,
        completions: Completions,
        models: ModelList,
        hub_proxy: HubProxy | None,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._current = current
        self._completions = completions
        self._models = models
        self._hub_proxy = hub_proxy

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one HTTP request."""
        try:
            await self._route(exchange)
        except ClientGoneError:
            _log.info("%s: the client went away", exchange.request_id)
        except GatewayError as error:
            self._fail(exchange, error)
        except Exception:  # noqa: BLE001 - the one top handler of this process
            _log.exception("%s %s %s failed", exchange.request_id, exchange.method, exchange.path)
            message = "the gateway failed; quote the request id to the operator"
            self._fail(exchange, GatewayError(500, "internal_error", message, kind=ErrorType.SERVER))

    def _route(self, exchange: Exchange) -> Awaitable[None]:
        """Return the work that a request asks for. Raises: GatewayError."""
        path = exchange.path
        exchange.anthropic = path == MESSAGES.path or "anthropic-version" in exchange.headers
        if path in SURFACES:
            _require_method(exchange, "POST")
            return self._completions.serve(exchange, SURFACES[path])
        if path == LIST_PATH or path.startswith(LIST_PATH + "/"):
            _require_method(exchange, "GET")
            return self._models.serve(exchange)
        if self._hub_proxy is not None and _under(path, _HUB_PATHS) and _is_straight(path):
            return self._hub_proxy.serve(exchange)
        if path == "/healthz":
            return self._answer_health(exchange)
        if _under(path, _NO_BACKEND) or (self._hub_proxy is None and _under(path, _HUB_PATHS)):
            raise GatewayError(501, "not_implemented", f"{path} has no backend here", kind=ErrorType.SERVER)
        raise GatewayError(404, "unknown_url", f"there is no route {exchange.method} {path}; see /v1/models")

    async def _answer_health(self, exchange: Exchange) -> None:
        version = self._current.fresh().version
        exchange.answer(200, json.dumps({"status": "ok", "snapshot_version": version}).encode())

    def _fail(self, exchange: Exchange, error: GatewayError) -> None:
        self._metrics.refused(error)
        if error.status >= 500:
            _log.warning("%s %s: %s", exchange.request_id, error.code, error.message)
        exchange.fail(error)


def _require_method(exchange: Exchange, method: str) -> None:
    if exchange.method != method:
        text = f"{exchange.path} takes {method}, not {exchange.method}"
        raise GatewayError(405, "method_not_allowed", text)


def _is_straight(path: str) -> bool:
    """Return whether no part of a path leads elsewhere once it is resolved."""
    return "\\" not in path and path.isprintable() and not {".", "..", ""} & set(path.strip("/").split("/"))


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)
