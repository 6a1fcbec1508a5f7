"""Checks a client's JSON body: known fields, sound values, bounded sizes. It never forwards what it does not know.

Prices, targets and reservations are left to `plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from serving.gateway.bounds import split_prompts
from serving.gateway.errors import ErrorType, GatewayError
from serving.gateway.named_checks import check_anthropic, check_responses
from serving.gateway.prompt_checks import MAX_PROMPTS, check_messages, check_schemas, invalid
from serving.gateway.quick_json import decode_json
from serving.gateway.surfaces import CHAT, COMPLETIONS, Dialect, Surface

MAX_CHOICES = 8
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_BIASES = 1024
MAX_LOGPROBS = 20
_INT64 = 2**63


def parse_body(surface: Surface, raw: bytes, scopes: Collection[str]) -> dict[str, Any]:
    """Return the checked body. Raises: GatewayError 400 naming the parameter, 403 for one that needs a scope."""
    try:
        body = decode_json(raw)
    except ValueError as error:
        raise no_json() from error
    if not isinstance(body, dict):
        raise GatewayError(400, "invalid_json", "the request body must be a JSON object")
    for name, value in body.items():
        if name not in surface.fields and name not in surface.ignored:
            _check_scoped(surface, name, scopes)
        check = _CHECKS.get(name)
        if check is not None and value is not None:
            check(name, value)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise invalid("model", "must be the public name of a model")
    _check_prompt(surface, body)
    if surface is CHAT or surface is COMPLETIONS:
        _check_logprobs(surface, body)
        _check_stream(body)
    return body


def no_json() -> GatewayError:
    """Return the refusal of a body that cannot be read."""
    return GatewayError(400, "invalid_json", "the request body is not valid JSON in UTF-8")


def _check_scoped(surface: Surface, name: str, scopes: Collection[str]) -> None:
    if name not in surface.scoped:
        message = f"unknown parameter {name!r:.80} for {surface.name}; remove it"
        raise GatewayError(400, "unknown_parameter", message, param=name[:80])
    if name not in scopes:
        message = f"the parameter {name} needs a key with the scope {name}; ask whoever made the key"
        raise GatewayError(403, "scope_missing", message, kind=ErrorType.PERMISSION, param=name)


def _check_prompt(surface: Surface, body: dict[str, Any]) -> None:
    prompt = body.get(surface.prompt_field)
    if surface is CHAT:
        check_messages(prompt)
        check_schemas(body)
    elif surface.dialect is Dialect.RESPONSES:
        check_responses(body)
    elif surface.dialect is Dialect.ANTHROPIC:
        check_anthropic(body)
    elif not _is_prompt(prompt):
        raise invalid(surface.prompt_field, f"must be text, token ids, or a list of at most {MAX_PROMPTS} of either")
    elif surface is COMPLETIONS and (texts := (body.get("n") or 1) * len(split_prompts(prompt))) > MAX_PROMPTS:
        raise invalid("n", f"asks {texts} texts of all prompts; a call may ask {MAX_PROMPTS}: send several calls")


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return bool(prompt.strip("\0"))
    if not isinstance(prompt, list) or not prompt:
        return False
    if all(type(item) is int for item in prompt):
        return all(0 <= item < 2**31 for item in prompt)
    prompts = split_prompts(prompt)
    return len(prompts) <= MAX_PROMPTS and all(
        bool(item) and (isinstance(item, str) or (isinstance(item, list) and all(type(token) is int for token in item)))
        for item in prompts
    )


def _check_logprobs(surface: Surface, body: dict[str, Any]) -> None:
    logprobs, top = body.get("logprobs"), body.get("top_logprobs")
    if surface is CHAT:
        if not isinstance(logprobs or False, bool):
            raise invalid("logprobs", "must be true or false")
        if top and not logprobs:
            raise invalid("top_logprobs", "needs logprobs = true")
    elif logprobs is not None and (type(logprobs) is not int or not 0 <= logprobs <= MAX_LOGPROBS):
        raise invalid("logprobs", f"is {logprobs!r:.40}; it must be a whole number from 0 to {MAX_LOGPROBS}")


def _check_stream(body: dict[str, Any]) -> None:
    options = body.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict) or not body.get("stream"):
        raise invalid("stream_options", "must be an object and needs stream = true")
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            message = f"unknown parameter 'stream_options.{name:.60}'; only include_usage is known"
            raise GatewayError(400, "unknown_parameter", message, param=f"stream_options.{name:.60}")


def _whole(least: int, most: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise invalid(name, f"is {value!r:.40}; it must be a whole number from {least} to {most}")

    return check


def _number(least: float, most: float) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise invalid(name, f"is {value!r:.40}; it must be a number from {least:g} to {most:g}")

    return check


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")


def _check_stop(name: str, value: Any) -> None:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise invalid(name, f"must be text or a list of at most {MAX_STOPS} texts")
    if not all(isinstance(stop, str) and len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise invalid(name, f"holds something that is no text of at most {MAX_STOP_CHARS} characters")


def _check_bias(name: str, value: Any) -> None:
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise invalid(name, f"must be an object of at most {MAX_BIASES} token ids")
    for token, bias in value.items():
        if not token.isdecimal() or type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise invalid(name, f"has {token!r:.20}: {bias!r:.20}; it takes token ids with numbers from -100 to 100")


_MOST_TOKENS = 2**31 - 1
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "n": _whole(1, MAX_CHOICES),
    "best_of": _whole(1, MAX_CHOICES),
    "max_tokens": _whole(1, _MOST_TOKENS),
    "max_completion_tokens": _whole(1, _MOST_TOKENS),
    "seed": _whole(-_INT64, _INT64 - 1),
    "top_k": _whole(-1, _MOST_TOKENS),
    "top_logprobs": _whole(0, MAX_LOGPROBS),
    "dimensions": _whole(1, 65536),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0, 2),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "stop": _check_stop,
    "stop_sequences": _check_stop,
    "max_output_tokens": _whole(1, _MOST_TOKENS),
    "logit_bias": _check_bias,
    "stream": _check_switch,
    "echo": _check_switch,
    "ignore_eos": _check_switch,
    "parallel_tool_calls": _check_switch,
}
