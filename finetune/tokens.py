"""Chat rows to token rows: which tokens a row has and which of them are answers to learn.

Leaves batching and the model to others. Prompt and answer are tokenised apart, so the prompt tokens are exactly
those that a server sees before it generates.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from finetune.errors import BaseError, DataError
from finetune.files import read_row_number

Message = Mapping[str, Any]
"""`role`, `content`, and `weight` 0 where an answer is not learned."""
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class TokenRow:
    """One row: `ids` token ids, `learn` spans [start, end) of trained answers including the end-of-turn token."""

    row: int
    ids: list[int]
    learn: tuple[tuple[int, int], ...]
    answer: str

    @property
    def prompt(self) -> list[int]:
        """Token ids before the last answer."""
        return self.ids[: self.learn[-1][0]]


def load_tokenizer(base: Path) -> Any:
    """Tokenizer of a base folder; raises BaseError `template_missing` without a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise BaseError("template_missing", f"{base.name} has no chat template; add chat_template.jinja to the base.")
    return tokenizer


def tokenize_rows(
    tokenizer: Any, rows: Sequence[tuple[int, Sequence[Message]]], path: Path | None = None
) -> list[TokenRow]:
    """Token rows in the given order; `path` is the checked file whose lines they are, to name the customer's rows.

    Raises:
        BaseError: the template cannot be learned from or served alike.
        DataError: it does not show what a tool says, and a row has that.
    """
    segments = [_render_row(tokenizer, number, messages, path) for number, messages in rows]
    texts = [text for row in segments for text, _ in row]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    found = []
    for (number, messages), parts in zip(rows, segments, strict=True):
        ids: list[int] = []
        learn = []
        for _, is_answer in parts:
            start = len(ids)
            ids.extend(next(encoded))
            if is_answer:
                learn.append((start, len(ids)))
        found.append(TokenRow(row=number, ids=ids, learn=tuple(learn), answer=messages[-1]["content"]))
    if rows:
        _prove_template(tokenizer, rows[0][1], segments[0])
        for row in found:
            _prove_stop_token(tokenizer, row)
    return found


def render_segments(tokenizer: Any, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    """The rendered chat cut into (text, is_trained) pieces in order; pieces are never empty."""
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    template = tokenizer.get_chat_template()
    text, spans = _find_marked(tokenizer, plain) if _MARKED.search(template) else _find_prefixes(tokenizer, plain)
    pieces = []
    at = 0
    for start, end in _leave_untrained(spans, messages):
        pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    pieces.append((text[at:], False))
    return [piece for piece in pieces if piece[0]]


def _render_row(tokenizer: Any, number: int, messages: Sequence[Message], path: Path | None) -> list[tuple[str, bool]]:
    """The pieces of a row; what a tool said must be among them, as not every template has a place for it."""
    from jinja2.exceptions import TemplateError

    said = [str(message["content"]) for message in messages if message["role"] == "tool"]
    if not said:
        return render_segments(tokenizer, messages)
    try:
        pieces = render_segments(tokenizer, messages)
    except TemplateError as error:
        raise _refuse_tools(number, path) from error
    text = "".join(piece for piece, _ in pieces)
    if any(one not in text and json.dumps(one, ensure_ascii=False)[1:-1] not in text for one in said):
        raise _refuse_tools(number, path)
    return pieces


def _refuse_tools(number: int, path: Path | None) -> DataError:
    row = number if path is None else read_row_number(path, number)
    return DataError(
        "tool_role_not_rendered",
        f"the base's chat template does not show messages of role 'tool' (first in row {row} of the data); choose a "
        "base whose template does, or leave such rows out: the data report offers it at 'tool_role'.",
    )


def _leave_untrained(spans: Sequence[tuple[int, int]], messages: Sequence[Message]) -> Sequence[tuple[int, int]]:
    """The spans without those of answers of weight 0, which become a part of the prompt after them."""
    trained = [message.get("weight") != 0 for message in messages if message["role"] == "assistant"]
    if all(trained):
        return spans
    if len(spans) != len(trained):
        raise BaseError(
            "template_not_stable",
            f"the chat template marks {len(spans)} answers of {len(trained)}, so 'weight' 0 cannot be told apart; mark "
            "each answer with one {% generation %} in the base's template.",
        )
    return [span for span, is_trained in zip(spans, trained, strict=True) if is_trained]


def _find_marked(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, spans = cast(
        Any,
        render_jinja_template(
            cast(Any, [messages]),
            chat_template=tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        ),
    )
    return str(rendered[0]), [(int(start), int(end)) for start, end in spans[0]]


def _find_prefixes(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """For templates without {% generation %}: an answer is what follows the prompt up to the end-of-turn token."""
    text = _render(tokenizer, messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, messages[:index], add_generation_prompt=True)
        stop = text.find(tokenizer.eos_token, len(prompt) + len(message["content"]))
        if not text.startswith(prompt) or stop < 0:
            raise BaseError(
                "template_not_stable",
                "the chat template rewrites earlier turns or has no end-of-turn token; mark answers with "
                "{% generation %} in the base's template.",
            )
        spans.append((len(prompt), stop + len(tokenizer.eos_token)))
    return text, spans


def _prove_template(tokenizer: Any, messages: Sequence[Message], segments: Sequence[tuple[str, bool]]) -> None:
    answers = [index for index, (_, is_answer) in enumerate(segments) if is_answer]
    learned = "".join(text for text, _ in segments[: answers[-1]]) if answers else ""
    if learned != _render(tokenizer, messages[:-1], add_generation_prompt=True):
        raise BaseError(
            "template_prompt_differs",
            "the prompt that is trained differs from the prompt that a server builds; correct the base's template.",
        )


def _prove_stop_token(tokenizer: Any, row: TokenRow) -> None:
    last = row.ids[row.learn[-1][1] - 1]
    if last != tokenizer.eos_token_id:
        raise BaseError(
            "stop_token_not_trained",
            f"the chat template does not train the end-of-answer token {tokenizer.eos_token!r}; the model would not "
            "learn to stop. Put it inside {% generation %}.",
        )


def _render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
    )
