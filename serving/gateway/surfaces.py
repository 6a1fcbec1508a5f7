"""The `/v1` surfaces with a backend and the body fields each of them accepts.

A field that is not in the table is refused by name; values deeper than the checks in `plan` are judged by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

_SAMPLING = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_tokens",
        "min_p",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
    }
)


@dataclass(frozen=True)
class Surface:
    """One POST route. `dropped` fields are accepted from clients and never forwarded."""

    name: str
    path: str
    fields: frozenset[str]
    prompt_field: str
    may_stream: bool
    default_max_tokens: int | None
    dropped: frozenset[str] = frozenset({"user", "metadata", "priority", "cache_salt"})


CHAT = Surface(
    name="chat completions",
    path="/v1/chat/completions",
    fields=_SAMPLING
    | {
        "model",
        "messages",
        "logprobs",
        "top_logprobs",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
    },
    prompt_field="messages",
    may_stream=True,
    default_max_tokens=None,
)
COMPLETIONS = Surface(
    name="completions",
    path="/v1/completions",
    fields=_SAMPLING | {"model", "prompt", "logprobs", "echo"},
    prompt_field="prompt",
    may_stream=True,
    default_max_tokens=16,
)
EMBEDDINGS = Surface(
    name="embeddings",
    path="/v1/embeddings",
    fields=frozenset({"model", "input", "encoding_format", "dimensions"}),
    prompt_field="input",
    may_stream=False,
    default_max_tokens=0,
)
SURFACES = {surface.path: surface for surface in (CHAT, COMPLETIONS, EMBEDDINGS)}
