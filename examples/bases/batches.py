"""Batches of generated rows for a base's training: rows of like length together, each row from its own start.

What a step does is left to `loop`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import PreTrainedTokenizerFast

from examples.bases.corpus import generate_rows
from examples.bases.recipes import BaseRecipe
from examples.bases.tokenizer import IGNORED, encode_rows

TokenisedRow = tuple[list[int], list[int]]
_WINDOW_ROWS = 4096
_MOST_ROW_TOKENS = 256


@dataclass(frozen=True)
class TokenBatch:
    """`ids` and `labels` (rows, longest row) int64, padded on the right; `tokens` counts without padding."""

    ids: torch.Tensor
    labels: torch.Tensor
    tokens: int


def build_batches(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[TokenBatch]:
    """Exactly `recipe.steps` batches of at most `recipe.batch_tokens` tokens, padding included."""
    return islice(_build_endlessly(recipe, tokenizer), recipe.steps)


def _build_endlessly(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[TokenBatch]:
    rng = random.Random(recipe.seed)
    window = 0
    while True:
        window += 1
        rows = generate_rows(recipe.mix, seed=recipe.seed + window, count=_WINDOW_ROWS)
        encoded = ((ids[:_MOST_ROW_TOKENS], labels[:_MOST_ROW_TOKENS]) for ids, labels in encode_rows(tokenizer, rows))
        groups = _group_by_length(sorted(encoded, key=lambda row: len(row[0])), recipe.batch_tokens)
        rng.shuffle(groups)
        yield from (_pad(group, int(tokenizer.pad_token_id)) for group in groups)


def _group_by_length(rows: list[TokenisedRow], most_tokens: int) -> list[list[TokenisedRow]]:
    groups: list[list[TokenisedRow]] = []
    group: list[TokenisedRow] = []
    for row in rows:  # shortest first, so the newest row sets the width
        if group and len(row[0]) * (len(group) + 1) > most_tokens:
            groups.append(group)
            group = []
        group.append(row)
    return [*groups, group]


def _pad(rows: list[TokenisedRow], pad_id: int) -> TokenBatch:
    width = max(len(ids) for ids, _ in rows)
    return TokenBatch(
        ids=torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows]),
        labels=torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows]),
        tokens=sum(len(ids) for ids, _ in rows),
    )
