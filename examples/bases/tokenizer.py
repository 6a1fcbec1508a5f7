"""Trains the byte-level BPE tokenizer of a base model and turns rows into token ids.

Which text is generated is left to `corpus`, learning from the ids to `train`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from examples.bases.rows import Row
from examples.bases.short_text import CIRCLED

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
IGNORED = -100

# The split of Qwen2, so that tools which rebuild it from the model type get the same tokens.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MAX_TOKEN_BYTES = 15

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|im_start|>assistant\n{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}{{ '\\n' }}"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(rows: Iterable[Row], *, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn merges from `rows`; `max_length` is the longest prompt in tokens that the model takes."""
    core = Tokenizer(BPE(fuse_unk=False, byte_fallback=False))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=_MAX_TOKEN_BYTES,
        show_progress=False,
    )
    core.train_from_iterator(_lines(rows), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, eos_token=TURN_END, pad_token=END_OF_TEXT, model_max_length=max_length
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode_rows(tokenizer: PreTrainedTokenizerFast, rows: Iterable[Row]) -> Iterator[tuple[list[int], list[int]]]:
    """Each row as (ids, labels): documents end with END_OF_TEXT, chats as the template renders them.

    What is not to be learnt (questions, turn marks) carries the label IGNORED.
    """
    texts = [_spans(row) for row in rows]
    flat = tokenizer.backend_tokenizer.encode_batch_fast([text for spans in texts for text, _ in spans])
    encoded = iter(flat)
    for spans in texts:
        ids: list[int] = []
        labels: list[int] = []
        for _, learnt in spans:
            piece = next(encoded).ids
            ids.extend(piece)
            labels.extend(piece if learnt else [IGNORED] * len(piece))
        yield ids, labels


def _spans(row: Row) -> list[tuple[str, bool]]:
    if row.text:
        return [(row.text + END_OF_TEXT, True)]
    spans: list[tuple[str, bool]] = []
    for message in row.messages:
        if message.role == "assistant":
            spans += [(f"{TURN_START}assistant\n", False), (message.content + TURN_END, True), ("\n", False)]
        else:
            spans.append((f"{TURN_START}{message.role}\n{message.content}{TURN_END}\n", False))
    return spans


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield row.text
        for message in row.messages:
            yield message.content
            yield message.role
    # Position marks must be single tokens however rare the long sentences are.
    for _ in range(500):
        yield "".join(CIRCLED)
