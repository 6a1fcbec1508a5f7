"""What a greedy stream has said so far, in tokens, so that another engine can go on with exactly the next one.

Engines add token ids to each chunk on request (`return_token_ids`); clients never see them. When to go on elsewhere is
decided by `completions`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serving.gateway.sse import Usage
from serving.gateway.surfaces import CHAT, Dialect, Surface

# Fields whose effect does not depend on where the prompt ends; with any other the rest could come out differently.
_KEPT = frozenset({"model", "cache_salt", "ignore_eos", "logit_bias", "seed", "min_p", "top_k", "top_p", "temperature"})
_NEUTRAL: Mapping[str, Any] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logprobs": False,
    "echo": False,
    "response_format": {"type": "text"},
    "tool_choice": "none",
}
_HARMLESS = frozenset({"messages", "prompt", "stream", "stream_options", "max_tokens", "return_token_ids"})
# The text of a token that is only part of a character.
_INCOMPLETE = "\ufffd"


def may_continue(surface: Surface, body: Mapping[str, Any]) -> bool:
    """Return whether the stream of this upstream body could be continued with identical text."""
    if (
        surface.dialect is not Dialect.OPENAI
        or not surface.may_stream
        or not body.get("stream")
        or body.get("temperature") != 0
    ):
        return False
    if isinstance(body.get("prompt"), list) and not all(type(token) is int for token in body["prompt"]):
        return False
    return all(
        name in _KEPT or name in _HARMLESS or value is None or (name in _NEUTRAL and value == _NEUTRAL[name])
        for name, value in body.items()
    )


class Transcript:
    """Feeds on parsed chunks, takes the token ids out and translates what a second engine says."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self._prompt: list[int] = []
        self._said: list[int] = []
        self._unsaid: list[int] = []
        self._head: dict[str, Any] = {}
        self._prompt_usage = Usage()
        self._said_before = 0
        self._resumed = False
        self._strange = False
        self._ended = False

    @property
    def said_tokens(self) -> int:
        """Return how many tokens of the engine at hand became text that the client has."""
        return len(self._said) - self._said_before

    @property
    def can_continue(self) -> bool:
        """Return whether everything needed is known."""
        return bool(self._prompt and self._said) and not (self._strange or self._ended)

    def take(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk as the client may see it."""
        if not self._head:
            self._head = {name: chunk[name] for name in ("id", "object", "created") if name in chunk}
        prompt = chunk.pop("prompt_token_ids", None)
        for choice in chunk["choices"]:
            prompt, ids = choice.pop("prompt_token_ids", None) or prompt, choice.pop("token_ids", None)
            self._ended |= bool(choice.get("finish_reason"))
            self._note(self._text_of(choice), ids or [])
        self._prompt = self._prompt or prompt or []
        return self._translate(chunk) if self._resumed else chunk

    def next_request(self, body: bytes, usage: Usage, context_tokens: int) -> bytes:
        """Return the body of a `/v1/completions` request that goes on after the last token said."""
        before: dict[str, Any] = json.loads(body)
        if not self._resumed:
            self._prompt_usage = usage
            self._asked = before.get("max_tokens") or context_tokens - len(self._prompt)
        self._resumed, self._unsaid, self._said_before = True, [], len(self._said)
        request = {name: value for name, value in before.items() if name in _KEPT}
        request |= {
            "prompt": self._prompt + self._said,
            "max_tokens": max(1, self._asked - len(self._said)),
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "return_token_ids": True,
        }
        return json.dumps(request, ensure_ascii=False).encode()

    def billed(self, usage: Usage) -> Usage:
        """Return what is billed for the engine at hand: its own tokens; the prompt was billed with the first one."""
        return Usage(0, 0, usage.completion_tokens) if self._resumed else usage

    def _text_of(self, choice: dict[str, Any]) -> str:
        if "delta" not in choice:
            return choice.get("text") or ""
        delta = choice["delta"]
        self._strange |= any(value for name, value in delta.items() if name not in ("role", "content"))
        return delta.get("content") or ""

    def _note(self, text: str, ids: list[int]) -> None:
        """Count tokens as said once their text is out; those held back by an engine are generated again."""
        self._unsaid += ids
        if text and not text.endswith(_INCOMPLETE):
            self._said += self._unsaid
            self._unsaid = []

    def _translate(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Give a chunk of the second engine the looks of the first one's."""
        shown = chunk | self._head
        if chunk["choices"] and self._surface is CHAT:
            choice = chunk["choices"][0]
            delta = {"content": choice.get("text") or ""}
            shown["choices"] = [
                {"index": 0, "delta": delta, "logprobs": None, "finish_reason": choice.get("finish_reason")}
            ]
        if chunk.get("usage"):
            completion = self._said_before + int(chunk["usage"].get("completion_tokens") or 0)
            prompt = self._prompt_usage.prompt_tokens
            shown["usage"] = {
                "prompt_tokens": prompt,
                "total_tokens": prompt + completion,
                "completion_tokens": completion,
            }
        return shown
