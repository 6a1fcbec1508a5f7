"""Greedy answers of a causal model for many prompts at once, with its own key-value cache.

Leaves comparing the answers to evaluate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_BATCH_ROWS = 64


@dataclass(frozen=True)
class Answer:
    """Generated text without special tokens; `stopped` if the model ended it by itself."""

    text: str
    stopped: bool


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    device: str,
    on_batch: Callable[[int], None],
    on_pass: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """One answer per prompt in the given order; `on_batch` gets the count done after each batch.

    `on_pass` is called for each token that a batch makes.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), _BATCH_ROWS):
        part = order[start : start + _BATCH_ROWS]
        tokens = _generate_batch(
            model,
            [prompts[index] for index in part],
            tokenizer.eos_token_id,
            max_new_tokens=max_new_tokens,
            device=device,
            on_pass=on_pass,
        )
        for index, ids in zip(part, tokens, strict=True):
            answers[index] = _decode(tokenizer, ids)
        on_batch(len(answers))
    return [answers[index] for index in range(len(prompts))]


def _generate_batch(
    model: Any,
    prompts: Sequence[list[int]],
    eos_id: int,
    *,
    max_new_tokens: int,
    device: str,
    on_pass: Callable[[], None],
) -> list[list[int]]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[eos_id] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    made: list[torch.Tensor] = []
    cache = None
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            found = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = found.past_key_values
            ids = found.logits[:, -1:].argmax(-1).masked_fill(done[:, None], eos_id)
            made.append(ids)
            on_pass()
            done |= ids[:, 0] == eos_id
            if bool(done.all()):
                break
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1
    answers: list[list[int]] = torch.cat(made, dim=1).tolist()
    return answers


def _decode(tokenizer: Any, ids: list[int]) -> Answer:
    stopped = tokenizer.eos_token_id in ids
    kept = ids[: ids.index(tokenizer.eos_token_id)] if stopped else ids
    return Answer(text=str(tokenizer.decode(kept, skip_special_tokens=True)), stopped=stopped)
