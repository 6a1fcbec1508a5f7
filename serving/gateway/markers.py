"""Keeps what people wrote from speaking as the chat template: a marker such as `<|im_start|>` in a text stays text.

Engines tokenise the filled-in template as a whole, so a marker in a message would become the control token itself. An
invisible word joiner behind its first sign makes ordinary tokens of it, which is also what is billed. Raw prompts of
`/v1/completions` are left as they are: there the caller writes the template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from serving.gateway.surfaces import COMPLETIONS, EMBEDDINGS, Surface

WORD_JOINER = "\u2060"
# <|name|> as of ChatML, Llama, Phi, GLM and gpt-oss; DeepSeek's wide bars; <s>, </s>, <bos>, <start_of_turn>; [INST].
_MARKER = re.compile(
    r"<(?=[|\uff5c][^<>|\uff5c]{1,64}[|\uff5c]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
)
_SAID = ("messages", "input", "instructions", "system")


def defuse_markers(surface: Surface, body: dict[str, Any]) -> None:
    """Change the texts of a conversation in place."""
    if surface is COMPLETIONS or surface is EMBEDDINGS:
        return
    for name in _SAID:
        said = body.get(name)
        if isinstance(said, str):
            body[name] = _defuse_text(said)
        elif isinstance(said, (list, dict)):
            _defuse(said)


def _defuse(held: list[Any] | dict[str, Any]) -> None:
    """Change every text inside, at any depth."""
    places: Iterable[tuple[Any, Any]] = enumerate(held) if isinstance(held, list) else held.items()
    for place, item in places:
        if isinstance(item, str):
            if "<" in item or "[" in item:
                held[place] = _defuse_text(item)
        elif isinstance(item, (list, dict)):
            _defuse(item)


def _defuse_text(text: str) -> str:
    return _MARKER.sub(lambda match: match.group() + WORD_JOINER, text)
