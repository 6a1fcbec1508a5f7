"""From a client's JSON body to a checked plan: which target, which upstream body, which worst cost.

Only what routing, money and tenant isolation need is checked here; the engine judges the sampling values.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from serving.contract import SnapshotKey, SnapshotPrice
from serving.gateway.access import Target, resolve_target
from serving.gateway.bounds import bound_tokens, split_prompts, worst_cost_ufen
from serving.gateway.errors import GatewayError, unavailable
from serving.gateway.surfaces import CHAT, EMBEDDINGS, Surface
from serving.gateway.view import View

MAX_CHOICES = 8
MAX_PROMPTS = 64
# Above this context length a request without max_tokens gets one, so that its reservation stays affordable.
LONG_CONTEXT_TOKENS = 8192
LONG_CONTEXT_MAX_TOKENS = 4096


@dataclass(frozen=True)
class Plan:
    """Everything known about a request before a replica is chosen."""

    surface: Surface
    target: Target
    prices: tuple[SnapshotPrice, ...]
    worst_ufen: int
    upstream_body: bytes
    stream: bool
    wants_usage: bool
    choices_per_prompt: int
    single_prompt: bool

    @property
    def public_name(self) -> str:
        """Return the name that the caller used and gets back."""
        return self.target.model.public_name


def plan_request(
    view: View, key: SnapshotKey, surface: Surface, raw: bytes, *, request_id: str, pepper: bytes, now_us: int
) -> Plan:
    """Check a client's body and plan the upstream request.

    Raises: GatewayError 400 naming the parameter, or the refusals of `resolve_target`.
    """
    body = _parse(surface, raw)
    target = resolve_target(view, key, body["model"], request_id=request_id, now_us=now_us)
    prices = view.prices.get(target.model.price_version_id, ())
    if not prices:
        message = f"{body['model']} has no price yet; its owner can publish one"
        raise unavailable("price_missing", message, retry_after_s=30)
    context = target.model.context_tokens
    max_tokens = _max_tokens(surface, body, context)
    bound = bound_tokens(surface, body, max_tokens=max_tokens, context_tokens=context)
    stream = bool(body.get("stream"))
    salt = _cache_salt(pepper, key.organisation_id)
    return Plan(
        surface=surface,
        target=target,
        prices=prices,
        worst_ufen=worst_cost_ufen(prices, bound),
        upstream_body=_upstream_body(surface, body, target.engine_name, max_tokens=max_tokens, salt=salt),
        stream=stream,
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        choices_per_prompt=body.get("n") or 1,
        single_prompt=surface is CHAT or len(split_prompts(body[surface.prompt_field])) == 1,
    )


@lru_cache(maxsize=4096)
def _cache_salt(pepper: bytes, organisation_id: str) -> str:
    """Return what keeps the prefix cache of one organisation apart from every other's."""
    return hmac.digest(pepper, f"cache-salt:{organisation_id}".encode(), "sha256").hex()


def _parse(surface: Surface, raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
        # Refuses NaN and unpaired surrogates here, where the client can still be told.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise GatewayError(400, "invalid_json", "the request body is not valid JSON in UTF-8") from error
    if not isinstance(body, dict):
        raise GatewayError(400, "invalid_json", "the request body must be a JSON object")
    for name in body:
        if name not in surface.fields and name not in surface.dropped:
            message = f"unknown parameter {name!r:.80} for {surface.name}; remove it"
            raise GatewayError(400, "unknown_parameter", message, param=name)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _invalid("model", "must be the public name of a model")
    _check_prompt(surface, body)
    _check_numbers(body)
    _check_stream(body)
    return body


def _check_prompt(surface: Surface, body: dict[str, Any]) -> None:
    prompt = body.get(surface.prompt_field)
    if surface is CHAT:
        if not isinstance(prompt, list) or not prompt or not all(isinstance(item, dict) for item in prompt):
            raise _invalid("messages", "must be a list of at least one message")
        for index, message in enumerate(prompt):
            _check_content(message.get("content"), f"messages[{index}].content")
        return
    if not _is_prompt(prompt):
        raise _invalid(surface.prompt_field, f"must be text, token ids, or a list of at most {MAX_PROMPTS} of either")


def _check_content(content: Any, param: str) -> None:
    if content is None or isinstance(content, str):
        return
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _invalid(param, "must be text or a list of text parts; no model here takes images, audio or files")


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return bool(prompt)
    if not isinstance(prompt, list) or not prompt:
        return False
    if all(type(item) is int for item in prompt):
        return True
    prompts = split_prompts(prompt)
    return len(prompts) <= MAX_PROMPTS and all(
        bool(item) and (isinstance(item, str) or (isinstance(item, list) and all(type(token) is int for token in item)))
        for item in prompts
    )


def _check_numbers(body: dict[str, Any]) -> None:
    for name, most in (("n", MAX_CHOICES), ("max_tokens", None), ("max_completion_tokens", None)):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1 or (most is not None and value > most):
            raise _invalid(
                name, f"is {value!r:.40}; it must be a whole number from 1" + (f" to {most}" if most else "")
            )


def _check_stream(body: dict[str, Any]) -> None:
    if not isinstance(body.get("stream") or False, bool):
        raise _invalid("stream", "must be true or false")
    options = body.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict) or not body.get("stream"):
        raise _invalid("stream_options", "must be an object and needs stream = true")
    for name in options:
        if name != "include_usage":
            message = f"unknown parameter 'stream_options.{name:.60}'; only include_usage is known"
            raise GatewayError(400, "unknown_parameter", message, param=f"stream_options.{name}")


def _max_tokens(surface: Surface, body: dict[str, Any], context_tokens: int) -> int | None:
    """Return the completion cap sent upstream; None leaves it to the engine, which stops at its context length."""
    asked: int | None = body.get("max_completion_tokens") or body.get("max_tokens") or surface.default_max_tokens
    if asked is None and context_tokens > LONG_CONTEXT_TOKENS:
        return LONG_CONTEXT_MAX_TOKENS
    return asked


def _upstream_body(
    surface: Surface, body: dict[str, Any], engine_name: str, *, max_tokens: int | None, salt: str
) -> bytes:
    kept = {name: value for name, value in body.items() if name in surface.fields}
    kept["model"] = engine_name
    if surface is not EMBEDDINGS:
        kept.pop("max_completion_tokens", None)
        kept["cache_salt"] = salt
        if max_tokens is not None:
            kept["max_tokens"] = max_tokens
        if body.get("stream"):
            kept["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return json.dumps(kept, ensure_ascii=False).encode()


def _invalid(param: str, text: str) -> GatewayError:
    return GatewayError(400, "invalid_value", f"{param} {text}", param=param)
