"""`GET /v1/models` and `/v1/models/{name}`: what the calling key could call now.

The rules are those of `access`; this file only shows their result.
"""

from __future__ import annotations

import json
from typing import Any

from serving.contract import Peppers, SnapshotModel
from serving.gateway.access import MODEL_NOT_FOUND, callable_models
from serving.gateway.authenticate import authenticate, authorization_of, view_knowing
from serving.gateway.clock import Clock, iso_time
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange
from serving.gateway.view import CurrentView

LIST_PATH = "/v1/models"


class ModelList:
    """The model routes of one gateway."""

    def __init__(self, *, current: CurrentView, peppers: Peppers, clock: Clock) -> None:
        self._current = current
        self._peppers = peppers
        self._clock = clock

    async def serve(self, exchange: Exchange) -> None:
        """Answer the list, or one model when the path goes on. Raises: GatewayError 401, 404."""
        authorization = authorization_of(exchange.headers)
        view = await view_knowing(self._current, authorization, self._clock)
        now_us = self._clock.now_us()
        key = authenticate(view, authorization, peppers=self._peppers, client_ip=exchange.client_ip, now_us=now_us)
        models = callable_models(view, key, now_us=now_us)
        name = exchange.path.removeprefix(LIST_PATH).strip("/")
        if not name:
            shown: dict[str, Any] = {"object": "list", "data": [_show(model) for model in models]}
        else:
            found = [model for model in models if model.public_name == name]
            if not found:
                text = f"the model {name!r:.120} does not exist or you have no access to it; GET /v1/models lists yours"
                raise GatewayError(404, MODEL_NOT_FOUND, text, param="model")
            shown = _show(found[0])
        exchange.answer(200, json.dumps(shown, ensure_ascii=False).encode())


def _show(model: SnapshotModel) -> dict[str, Any]:
    filing = model.filing
    return {
        "id": model.public_name,
        "object": "model",
        "created": _created_s(model.version_id),
        "owned_by": model.organisation_id,
        "version_id": model.version_id,
        "max_model_len": model.context_tokens,
        "filing": None if filing is None else {"name": filing.name, "number": filing.number},
        "retires_at": None if model.retires_at is None else iso_time(model.retires_at),
        "successor": model.successor,
    }


def _created_s(version_id: str) -> int:
    """Return the seconds since 1970 in which a version id (UUIDv7 in hex behind its prefix) was made, else 0."""
    digits = version_id.rpartition("_")[2][:12]
    try:
        return int(digits, 16) // 1000
    except ValueError:
        return 0
