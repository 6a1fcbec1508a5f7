"""Keeps what people wrote from speaking as the chat template: a marker such as `<|im_start|>` in a text stays text.

Engines tokenise the filled-in template as a whole, so a marker in a message would become the control token itself. An
invisible word joiner behind its first sign makes ordinary tokens of it, which is also what is billed. Raw prompts of
`/v1/completions` are left as they are: there the caller writes the template.
"""

from __future__ import annotations

import re
from typing import Any

from serving.gateway.surfaces import COMPLETIONS, EMBEDDINGS, Surface

WORD_JOINER = "\u2060"
# <|name|> as of ChatML, Llama, Phi, GLM and gpt-oss; DeepSeek's wide bars; <s>, </s>, <bos>, <start_of_turn>; [INST].
_MARKER = re.compile(
    r"<(?=[|\uff5c][^<>|\uff5c]{1,64}[|\uff5c]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
)
_SAID = frozenset({"messages", "input", "instructions", "system"})


def defuse_markers(surface: Surface, body: dict[str, Any]) -> None:
    """Change the texts of a conversation in place."""
    if surface is COMPLETIONS or surface is EMBEDDINGS:
        return
    for name in _SAID & body.keys():
        body[name] = _defuse(body[name])


def _defuse(value: Any) -> Any:
    if isinstance(value, str):
        return _MARKER.sub(lambda match: match.group() + WORD_JOINER, value) if "<" in value or "[" in value else value
    if isinstance(value, list):
        return [_defuse(item) for item in value]
    if isinstance(value, dict):
        return {name: _defuse(item) for name, item in value.items()}
    return value
