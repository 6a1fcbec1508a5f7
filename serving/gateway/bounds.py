"""Upper bounds of the tokens that a request can cost, taken before it is sent.

Byte-level tokenisers never make more tokens than bytes; the engine's context length caps what special cases remain.
Money for the bound is reserved by `wallet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.gateway.surfaces import CHAT, EMBEDDINGS, Dialect, Surface

_TEMPLATE_TOKENS = 256
_TOKENS_PER_MESSAGE = 16
_TOOLS_TEMPLATE_TOKENS = 1024
_SPECIAL_TOKENS = 8


class TokenBound(NamedTuple):
    """No request costs more prompt or completion tokens than these."""

    prompt_tokens: int
    completion_tokens: int


def bound_tokens(
    surface: Surface, body: Mapping[str, Any], *, body_bytes: int, max_tokens: int | None, context_tokens: int
) -> TokenBound:
    """Return the most tokens that the checked `body` can use on an engine with `context_tokens`.

    `body_bytes` is the size of its JSON text, which holds the messages and tools.
    """
    asked = body[surface.prompt_field]
    if surface is CHAT or surface.dialect is not Dialect.OPENAI:
        prompts, most = 1, _chat_bound(body, body_bytes, len(asked) if isinstance(asked, list) else 1)
        prompt_tokens = min(most, context_tokens)
    else:
        split = split_prompts(asked)
        prompts, prompt_tokens = len(split), sum(min(_text_bound(prompt), context_tokens) for prompt in split)
    if surface is EMBEDDINGS:
        return TokenBound(prompt_tokens=prompt_tokens, completion_tokens=0)
    per_choice = context_tokens if max_tokens is None else min(max_tokens, context_tokens)
    choices = (body.get("n") or 1) * prompts
    return TokenBound(prompt_tokens=prompt_tokens, completion_tokens=per_choice * choices)


def split_prompts(prompt: Any) -> list[str | list[int]]:
    """Return the single prompts of a `prompt` or `input` field: text, token ids, or lists of either."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def _chat_bound(body: Mapping[str, Any], body_bytes: int, messages: int) -> int:
    tools = _TOOLS_TEMPLATE_TOKENS if body.get("tools") else 0
    return body_bytes + tools + _TEMPLATE_TOKENS + _TOKENS_PER_MESSAGE * messages


def _text_bound(prompt: str | list[int]) -> int:
    return len(prompt.encode() if isinstance(prompt, str) else prompt) + _SPECIAL_TOKENS
