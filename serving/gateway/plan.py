"""From a client's JSON body to a checked plan: which target, which upstream body, which worst cost.

Only what routing, money and tenant isolation need is checked here; the engine judges the sampling values.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from serving.contract import SnapshotKey, SnapshotPrice, worst_cost_ufen
from serving.gateway.access import IsRouted, Target, resolve_target
from serving.gateway.body_checks import no_json, parse_body
from serving.gateway.bounds import bound_tokens, split_prompts
from serving.gateway.errors import unavailable
from serving.gateway.markers import defuse_markers
from serving.gateway.quick_json import encode_json
from serving.gateway.surfaces import COMPLETIONS, EMBEDDINGS, Dialect, Surface
from serving.gateway.transcript import may_continue
from serving.gateway.view import View

# Above this context length a request without max_tokens gets one, so that its reservation stays affordable.
LONG_CONTEXT_TOKENS = 8192
LONG_CONTEXT_MAX_TOKENS = 4096
_AFFINITY_BYTES = 256


@dataclass(frozen=True)
class Plan:
    """Everything known about a request before a replica is chosen."""

    surface: Surface
    target: Target
    prices: tuple[SnapshotPrice, ...]
    worst_tokens: int
    worst_ufen: int
    upstream_body: bytes
    stream: bool
    wants_usage: bool
    choices_per_prompt: int
    single_prompt: bool
    continuable: bool
    affinity: bytes = b""

    @property
    def public_name(self) -> str:
        """Return the name that the caller used and gets back."""
        return self.target.model.public_name


def plan_request(
    view: View,
    key: SnapshotKey,
    surface: Surface,
    raw: bytes,
    *,
    session: str,
    pepper: bytes,
    now_us: int,
    plain: bool = False,
    is_routed: IsRouted | None = None,
) -> Plan:
    """Check a client's body and plan the upstream request; `plain` leaves out what only vLLM knows.

    `session` is the client's `x-session-id`; without one its `user` or `prompt_cache_key` stands for it.

    Raises: GatewayError 400 naming the parameter, or the refusals of `resolve_target`.
    """
    body = parse_body(surface, raw, key.scopes)
    defuse_markers(surface, body)
    session = session or str(body.get("user") or body.get("prompt_cache_key") or "")
    target = resolve_target(view, key, body["model"], session=session, now_us=now_us, is_routed=is_routed)
    prices = view.prices.get(target.model.price_version_id, ())
    if not prices:
        message = f"{body['model']} has no price yet; its owner can publish one"
        raise unavailable("price_missing", message, retry_after_s=30)
    context = target.model.context_tokens
    max_tokens = _max_tokens(surface, body, context)
    salt = None if plain else _cache_salt(pepper, key.organisation_id)
    sent = _upstream_body(surface, body, target.engine_name, max_tokens=max_tokens, salt=salt)
    continuable = not plain and may_continue(surface, sent)
    if continuable:
        sent["return_token_ids"] = True
    upstream_body = _encode(sent)
    bound = bound_tokens(surface, body, body_bytes=len(upstream_body), max_tokens=max_tokens, context_tokens=context)
    return Plan(
        surface=surface,
        target=target,
        prices=prices,
        worst_tokens=sum(bound),
        # Never 0: a slice that holds nothing could be closed under a call of a model that is free.
        worst_ufen=max(1, worst_cost_ufen(prices, *bound)),
        upstream_body=upstream_body,
        stream=bool(body.get("stream")),
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        choices_per_prompt=body.get("n") or 1,
        continuable=continuable,
        affinity=_affinity(body, upstream_body),
        single_prompt=surface is not COMPLETIONS or len(split_prompts(body[surface.prompt_field])) == 1,
    )


@lru_cache(maxsize=4096)
def _cache_salt(pepper: bytes, organisation_id: str) -> str:
    """Return what keeps the prefix cache of one organisation apart from every other's."""
    return hmac.digest(pepper, f"cache-salt:{organisation_id}".encode(), "sha256").hex()


def _max_tokens(surface: Surface, body: dict[str, Any], context_tokens: int) -> int | None:
    """Return the completion cap sent upstream; None leaves it to the engine, which stops at its context length."""
    asked: int | None = body.get("max_completion_tokens") or body.get(surface.cap_field) or surface.default_max_tokens
    if asked is None and context_tokens > LONG_CONTEXT_TOKENS:
        return LONG_CONTEXT_MAX_TOKENS
    return asked


def _upstream_body(
    surface: Surface, body: dict[str, Any], engine_name: str, *, max_tokens: int | None, salt: str | None
) -> dict[str, Any]:
    kept = {name: value for name, value in body.items() if name not in surface.ignored}
    kept["model"] = engine_name
    if surface is not EMBEDDINGS:
        kept.pop("max_completion_tokens", None)
        if salt is not None:
            kept["cache_salt"] = salt
        if max_tokens is not None:
            kept[surface.cap_field] = max_tokens
        if surface.dialect is Dialect.RESPONSES:
            kept["store"] = False
        if body.get("stream") and surface.dialect is Dialect.OPENAI:
            kept["stream_options"] = {"include_usage": True} | ({"continuous_usage_stats": True} if salt else {})
    return kept


def _affinity(body: dict[str, Any], upstream_body: bytes) -> bytes:
    """Return what calls share that profit from the same engine's cache: the caller's own key, or how they begin."""
    named = body.get("prompt_cache_key") or body.get("user")
    return named.encode()[:_AFFINITY_BYTES] if isinstance(named, str) else upstream_body[:_AFFINITY_BYTES]


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return encode_json(body)
    except ValueError as error:
        raise no_json() from error
