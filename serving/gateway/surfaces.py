"""The `/v1` surfaces with a backend and the body fields each of them accepts.

A field that is in no table is refused by name; the values are judged by `body_checks`, what is left by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from serving.contract import SCOPE_IGNORE_EOS

_SAMPLING = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "model",
        "n",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
    }
)
# Fields of the OpenAI schema that mean nothing on a self-hosted engine. They are accepted, so that no client breaks,
# and never forwarded: bookkeeping of OpenAI's own platform (metadata, store, user, safety_identifier, moderation),
# its caches and tiers (prompt_cache_*, service_tier), output that text models do not make (audio, modalities,
# verbosity, web_search_options), hints that may be ignored by their definition (prediction), and the forerunners of
# tools (functions, function_call).
_IGNORED = frozenset({"user", "metadata", "store", "safety_identifier", "service_tier", "moderation"})
_IGNORED_CHAT = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "modalities",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "verbosity",
        "web_search_options",
    }
)


class Dialect(StrEnum):
    """The shape of answers. The named ones tell their usage only with the last event."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True)
class Surface:
    """One POST route. `ignored` fields are accepted from clients and never forwarded; `scoped` need a key's scope."""

    name: str
    path: str
    fields: frozenset[str]
    prompt_field: str
    may_stream: bool
    default_max_tokens: int | None
    ignored: frozenset[str] = _IGNORED
    scoped: frozenset[str] = frozenset()
    cap_field: str = "max_tokens"
    dialect: Dialect = Dialect.OPENAI


CHAT = Surface(
    name="chat completions",
    path="/v1/chat/completions",
    fields=_SAMPLING
    | {
        "max_completion_tokens",
        "messages",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "tool_choice",
        "tools",
        "top_logprobs",
    },
    prompt_field="messages",
    may_stream=True,
    default_max_tokens=None,
    ignored=_IGNORED | _IGNORED_CHAT,
    scoped=frozenset({SCOPE_IGNORE_EOS}),
)
COMPLETIONS = Surface(
    name="completions",
    path="/v1/completions",
    fields=_SAMPLING | {"echo", "prompt", "suffix"},
    prompt_field="prompt",
    may_stream=True,
    default_max_tokens=16,
    # The best of several is not chosen by the engine any more; what is returned is what `n` asks for.
    ignored=_IGNORED | {"best_of"},
    scoped=frozenset({SCOPE_IGNORE_EOS}),
)
EMBEDDINGS = Surface(
    name="embeddings",
    path="/v1/embeddings",
    fields=frozenset({"model", "input", "encoding_format", "dimensions"}),
    prompt_field="input",
    may_stream=False,
    default_max_tokens=0,
)
RESPONSES = Surface(
    name="responses",
    path="/v1/responses",
    fields=frozenset(
        {
            "input",
            "instructions",
            "max_output_tokens",
            "model",
            "parallel_tool_calls",
            "reasoning",
            "stream",
            "temperature",
            "text",
            "tool_choice",
            "tools",
            "top_logprobs",
            "top_p",
            "truncation",
        }
    ),
    prompt_field="input",
    may_stream=True,
    default_max_tokens=None,
    # Nothing is kept between two calls and no tools run here, so what refers to either means nothing.
    ignored=_IGNORED
    | {
        "access_programs",
        "background",
        "background_options",
        "context_management",
        "conversation",
        "image",
        "include",
        "max_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "stream_options",
    },
    cap_field="max_output_tokens",
    dialect=Dialect.RESPONSES,
)
MESSAGES = Surface(
    name="messages",
    path="/v1/messages",
    fields=frozenset(
        {
            "max_tokens",
            "messages",
            "model",
            "output_config",
            "stop_sequences",
            "stream",
            "system",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_p",
        }
    ),
    prompt_field="messages",
    may_stream=True,
    default_max_tokens=None,
    ignored=frozenset(
        {
            "cache_control",
            "container",
            "diagnostics",
            "inference_geo",
            "metadata",
            "service_tier",
            "speed",
            "user_profile_id",
            "workspace_id",
        }
    ),
    dialect=Dialect.ANTHROPIC,
)
SURFACES = {surface.path: surface for surface in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)}
