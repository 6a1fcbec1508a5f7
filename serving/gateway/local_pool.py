"""The pool controller's part of a gateway that stands alone: fixed replicas, asked once which models they serve.

Ejecting replicas that fail is left to `routing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from serving.contract import Demand, NamedModel, RouteReplica, Routes
from serving.gateway.key_file import digest_of

DEFAULT_CONTEXT_TOKENS = 32_768
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_FOR_EVER_S = 3600.0


class ReplicaError(Exception):
    """A replica does not say what it serves; the message says what to do."""


class LocalPool:
    """Replicas as given on the command line; `models` holds what was found."""

    def __init__(self, replicas: Sequence[tuple[str, NamedModel]]) -> None:
        self._replicas = tuple(
            RouteReplica(f"replica_{number}", 1, url, model.digest, draining=False)
            for number, (url, model) in enumerate(replicas, start=1)
        )
        self.models = tuple({model.name: model for _, model in replicas}.values())

    async def poll_routes(self, after: int) -> Routes | None:
        """Return the routes once."""
        if after:
            await asyncio.sleep(_FOR_EVER_S)
        return Routes(version=1, replicas=self._replicas, placement={}, resident={})

    async def post_demand(self, demand: Demand) -> None:
        """Nobody scales here."""


async def find_models(given: Sequence[str], headers: Mapping[str, str]) -> LocalPool:
    """Return the pool of `URL` or `URL=model` texts; without a model all that the replica lists are served.

    Raises: ReplicaError when a replica without a named model cannot be asked.
    """
    found: list[tuple[str, NamedModel]] = []
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=dict(headers)) as session:
        for text in given:
            url, _, name = text.partition("=")
            url = url.rstrip("/").removesuffix("/v1")
            listed = await _list_models(session, url, needed=not name)
            chosen = {name: listed.get(name, DEFAULT_CONTEXT_TOKENS)} if name else listed
            found += [(url, _name(model, context)) for model, context in chosen.items()]
    return LocalPool(found)


def _name(model: str, context_tokens: int) -> NamedModel:
    digest = digest_of(model)
    return NamedModel(model, digest, digest, context_tokens)


async def _list_models(session: aiohttp.ClientSession, url: str, *, needed: bool) -> dict[str, int]:
    """Return context length by model name; nothing when the replica is silent and that is no harm."""
    try:
        async with session.get(f"{url}/v1/models") as answer:
            listed = (await answer.json())["data"]
            return {each["id"]: int(each.get("max_model_len") or DEFAULT_CONTEXT_TOKENS) for each in listed}
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        if not needed:
            return {}
        text = f"{url}/v1/models does not list models ({type(error).__name__}); name one: --replica {url}=MODEL"
        raise ReplicaError(text) from error
