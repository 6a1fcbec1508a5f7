"""Bodies of calls for the tests of the planner: what is sent, what an engine gets of it, what is refused.

No network: `plan_request` alone reads them.
"""

import json
from typing import Any

import pytest

from serving.gateway.errors import GatewayError
from serving.gateway.plan import plan_request
from serving.gateway.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, Surface
from serving.gateway.view import View
from tests.gateway.samples import PEPPER, make_key, make_model, make_snapshot

SAMPLES: dict[str, Any] = {
    "audio": {"voice": "x", "format": "wav"},
    "best_of": 2,
    "dimensions": 8,
    "echo": True,
    "encoding_format": "float",
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "input": "x",
    "logit_bias": {"5": -100},
    "logprobs": True,
    "max_completion_tokens": 7,
    "max_tokens": 7,
    "messages": [{"role": "user", "content": "x"}],
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "moderation": {"model": "m"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": -0.5,
    "prompt": "x",
    "prompt_cache_key": "k",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "auto",
    "stop": ["a", "b"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "suffix": "end",
    "temperature": 0,
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "top_logprobs": 3,
    "top_p": 0.9,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
ANTHROPIC: dict[str, Any] = {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
NEEDED = {CHAT: ["messages"], COMPLETIONS: ["prompt"], EMBEDDINGS: ["input"]}


def send(surface: Surface, scopes: tuple[str, ...] = ("inference",), **fields: Any) -> dict[str, Any]:
    """Return the body that an engine gets for these fields and what the surface needs besides."""
    view = View.of(make_snapshot(keys=(), models=(make_model("org/m"),)))
    body = {"model": "org/m"} | {name: SAMPLES[name] for name in NEEDED.get(surface, [])} | fields
    raw = json.dumps(body).encode()
    key = make_key(1, scopes=scopes)
    plan = plan_request(view, key, surface, raw, session="r", pepper=PEPPER, now_us=1)
    sent: dict[str, Any] = json.loads(plan.upstream_body)
    return sent


def refusal(surface: Surface, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        send(surface, **fields)
    return refused.value
