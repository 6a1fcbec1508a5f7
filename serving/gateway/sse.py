"""Reads the engine's event stream: usage, model name and end, without touching the rest of the bytes.

Writing to the client and the journal is left to `relay`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from serving.gateway.quick_json import decode_json, encode_json

MAX_EVENT_BYTES = 8 * 1024 * 1024
_USAGE = re.compile(rb',\s*"usage"\s*:\s*')
_USAGE_LAST = b',"usage":'
_DECODER = json.JSONDecoder()


class Usage(NamedTuple):
    """Token counts as the engine reports them; cached ones are part of the prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, reported: dict[str, Any]) -> Usage:
        """Read the OpenAI `usage` object of an answer or chunk."""
        prompt_tokens = int(reported.get("prompt_tokens") or 0)
        details = reported.get("prompt_tokens_details") or {}
        cached_tokens = min(int(details.get("cached_tokens") or 0), prompt_tokens)
        return cls(prompt_tokens, cached_tokens, int(reported.get("completion_tokens") or 0))


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Reported(msgspec.Struct):
    """The engine's `usage` as it ordinarily is; one that does not fit is read as `Usage.of` does."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


_DECODE_REPORTED = msgspec.json.Decoder(_Reported).decode


def read_reported(text: bytes) -> Usage:
    """Return the usage in an engine's `usage` object. Raises: ValueError when it is none of the ordinary kind."""
    reported = _DECODE_REPORTED(text)
    prompt_tokens = reported.prompt_tokens or 0
    details = reported.prompt_tokens_details
    cached_tokens = (details.cached_tokens or 0) if details is not None else 0
    return Usage(prompt_tokens, min(cached_tokens, prompt_tokens), reported.completion_tokens or 0)


class RunningUsage:
    """Adds up running usage, which engines report per choice; the last chunk has the total and replaces it.

    `choices_per_prompt` is the request's `n`: choice index divided by it is the prompt's number. `usage` is what is
    known so far, None before the engine said anything.
    """

    def __init__(self, choices_per_prompt: int) -> None:
        self.usage: Usage | None = None
        self._choices_per_prompt = choices_per_prompt
        self._by_choice: dict[int, Usage] = {}
        self._has_total = False

    def note_single(self, usage: Usage) -> None:
        """Take the running usage of the only choice into account."""
        self._by_choice[0] = usage
        if not self._has_total:
            self.usage = usage

    def note(self, chunk: dict[str, Any]) -> None:
        """Take the usage of one chunk into account."""
        reported = chunk.get("usage")
        if not reported:
            return
        usage = Usage.of(reported)
        if not chunk["choices"]:
            self.usage, self._has_total = usage, True
        for choice in chunk["choices"]:
            self._by_choice[int(choice.get("index") or 0)] = usage
        if not self._has_total:
            self.usage = self._sum()

    def _sum(self) -> Usage:
        prompts = {index // self._choices_per_prompt: usage for index, usage in self._by_choice.items()}
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts.values()),
            cached_tokens=sum(usage.cached_tokens for usage in prompts.values()),
            completion_tokens=sum(usage.completion_tokens for usage in self._by_choice.values()),
        )


class StreamReader:
    """Feeds on raw bytes, gives back what the client may see, and remembers what matters for the bill."""

    def __init__(
        self,
        *,
        engine_name: str,
        public_name: str,
        wants_usage: bool,
        choices_per_prompt: int = 1,
        single_prompt: bool = False,
        revise: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """`revise` may change each parsed chunk before it is shown; it sees usage of all kinds too."""
        self._model = re.compile(rb'"model"\s*:\s*' + re.escape(json.dumps(engine_name).encode()))
        self._public_field = b'"model":' + json.dumps(public_name, ensure_ascii=False).encode()
        self._engine_field = b'"model":' + json.dumps(engine_name).encode()
        self._public_name = public_name
        self._revise = revise
        self._single = choices_per_prompt == 1 and single_prompt and revise is None
        self._wants_usage = wants_usage
        self._pending = b""
        self._running = RunningUsage(choices_per_prompt)
        self.finish_reason: str | None = None
        self.owes_unknown = False
        """The client has text whose tokens are not told yet: engines other than vLLM tell them at the end."""
        self.done = False
        self.failed = False

    @property
    def usage(self) -> Usage | None:
        """Return the tokens used so far."""
        return self._running.usage

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to forward for `data`; nothing more after the end or a failure of the engine."""
        *events, self._pending = (self._pending + data if self._pending else data).split(b"\n\n")
        if len(self._pending) > MAX_EVENT_BYTES:
            self.failed = True
        if len(events) == 1 and events[0]:
            return self._forward(events[0])
        return b"".join([self._forward(event) for event in events if event])

    def _forward(self, event: bytes) -> bytes:
        if self.done or self.failed:
            return b""
        if not event.startswith(b"data:"):
            return event + b"\n\n"
        payload = event[5:].strip()
        if payload == b"[DONE]":
            self.done = True
            return event + b"\n\n"
        quick = self._forward_plain(payload) if self._single else b""
        if quick:
            return quick
        chunk = self._parse(payload)
        if chunk is None:
            return b""
        if self._revise is not None:
            return self._forward_revised(self._revise(chunk))
        if not self._visible(chunk):
            return b""
        return b"data: " + self._rewrite(payload, chunk) + b"\n\n"

    def _forward_revised(self, chunk: dict[str, Any]) -> bytes:
        if not self._visible(chunk):
            return b""
        if chunk["choices"]:
            chunk.pop("usage", None)
        return b"data: " + encode_json(chunk | {"model": self._public_name}) + b"\n\n"

    def _forward_plain(self, payload: bytes) -> bytes:
        """Return an ordinary chunk in the middle of a single answer without parsing all of it; empty for any other.

        Inside JSON strings every quote is escaped, so none of these bytes can be part of generated text.
        """
        at = payload.rfind(_USAGE_LAST)
        if at < 0 or b'"finish_reason":null' not in payload or b'"choices":[{' not in payload:
            return b""
        try:
            usage = read_reported(payload[at + len(_USAGE_LAST) : -1])
        except ValueError:
            return b""
        if self._engine_field not in payload:
            return b""
        self._running.note_single(usage)
        self.owes_unknown = False
        return b"data: " + payload[:at].replace(self._engine_field, self._public_field, 1) + b"}\n\n"

    def _parse(self, payload: bytes) -> dict[str, Any] | None:
        """Return the chunk and note its usage and end; None when the engine reports its own failure."""
        try:
            chunk = decode_json(payload)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict) or "choices" not in chunk:
            self.failed = True
            return None
        self._running.note(chunk)
        self.owes_unknown = self._running.usage is None and bool(chunk["choices"] or self.owes_unknown)
        for choice in chunk["choices"]:
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        return chunk

    def _visible(self, chunk: dict[str, Any]) -> bool:
        return bool(chunk["choices"]) or self._wants_usage

    def _rewrite(self, payload: bytes, chunk: dict[str, Any]) -> bytes:
        """Replace the engine's model name and drop running usage, by bytes where the layout allows it."""
        renamed, count = self._model.subn(lambda _: self._public_field, payload, count=1)
        drop_usage = "usage" in chunk and bool(chunk["choices"])
        if drop_usage:
            renamed = _without_usage(renamed)
        if count == 1 and renamed:
            return renamed
        kept = {name: value for name, value in chunk.items() if not (drop_usage and name == "usage")}
        return json.dumps(kept | {"model": self._public_name}, ensure_ascii=False).encode()


def _without_usage(payload: bytes) -> bytes:
    """Return the chunk without its last `usage` member; empty when it is not where engines put it.

    Inside JSON strings every quote is escaped, so these bytes cannot be part of generated text.
    """
    matches = list(_USAGE.finditer(payload))
    if not matches:
        return b""
    tail = payload[matches[-1].end() :].decode()
    _, end = _DECODER.raw_decode(tail)
    return payload[: matches[-1].start()] + tail[end:].encode()
