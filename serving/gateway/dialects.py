"""Reads the answers of `/v1/responses` and `/v1/messages`, whose events are named and tell their usage at the end.

The stream of completions is read by `sse`; which surface speaks which dialect stands in `surfaces`.
"""

from __future__ import annotations

import json
from typing import Any

from serving.gateway.sse import MAX_EVENT_BYTES, Usage

_LAST = frozenset({"response.completed", "response.incomplete", "message_stop"})
_FAILED = frozenset({"response.failed", "error"})
# Before any text; whatever else comes is part of the answer.
_OPENING = frozenset({"response.created", "response.queued", "response.in_progress", "message_start", "ping"})
_CUT_SHORT = frozenset({"max_tokens", "max_output_tokens", "length"})


def read_usage(reported: dict[str, Any]) -> Usage:
    """Read the usage object of any dialect; Anthropic's input tokens leave the cached ones out."""
    if "input_tokens" not in reported:
        return Usage.of(reported)
    cached = int(reported.get("cache_read_input_tokens") or 0)
    prompt = int(reported.get("input_tokens") or 0) + cached
    cached += int((reported.get("input_tokens_details") or {}).get("cached_tokens") or 0)
    return Usage(prompt, min(cached, prompt), int(reported.get("output_tokens") or 0))


def read_ends(answer: dict[str, Any]) -> list[Any]:
    """Return why each choice of a whole answer ended, in the words of its dialect."""
    if "choices" in answer:
        return [choice.get("finish_reason") for choice in answer["choices"]]
    return [answer.get("stop_reason") or (answer.get("incomplete_details") or {}).get("reason")]


def means_length(reason: Any) -> bool:
    """Return whether an answer was cut at its token limit."""
    return reason in _CUT_SHORT


class NamedEventReader:
    """Feeds on raw bytes, gives back what the client may see; usage is known once the engine says it."""

    def __init__(self, public_name: str) -> None:
        self._public_name = public_name
        self._pending = b""
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.done = False
        self.failed = False
        self.owes_unknown = False
        """Text was forwarded and its tokens are not told yet."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to forward for `data`; nothing more after the end or a failure of the engine."""
        *events, self._pending = (self._pending + data).split(b"\n\n")
        self.failed = self.failed or len(self._pending) > MAX_EVENT_BYTES
        return b"".join([self._forward(event) for event in events if event])

    def _forward(self, event: bytes) -> bytes:
        if self.done or self.failed:
            return b""
        lines = event.split(b"\n")
        said = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if not said:
            return event + b"\n\n"
        chunk = self._parse(said[0])
        if chunk is None:
            return b""
        named = [line for line in lines if line.startswith(b"event:")]
        shown = json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()
        return b"\n".join([*named, b"data: " + shown]) + b"\n\n"

    def _parse(self, payload: bytes) -> dict[str, Any] | None:
        """Return the event under the public name; None when the engine reports its own failure."""
        try:
            chunk = json.loads(payload)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict) or not isinstance(chunk.get("type"), str) or chunk["type"] in _FAILED:
            self.failed = True
            return None
        whole = chunk.get("response") or chunk.get("message")
        if isinstance(whole, dict):
            whole["model"] = self._public_name
            self._note(whole)
        self._note(chunk)
        self.done = chunk["type"] in _LAST
        self.owes_unknown = self.usage is None and (self.owes_unknown or chunk["type"] not in _OPENING)
        return chunk

    def _note(self, holder: dict[str, Any]) -> None:
        reported = holder.get("usage")
        if isinstance(reported, dict) and reported.get("output_tokens"):
            self.usage = read_usage(reported)
        delta = holder.get("delta")
        reason = (delta.get("stop_reason") if isinstance(delta, dict) else None) or (
            holder.get("incomplete_details") or {}
        ).get("reason")
        if means_length(reason):
            self.finish_reason = "length"
