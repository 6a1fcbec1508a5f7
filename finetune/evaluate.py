"""Score a model on held-out rows: loss, log-probabilities, exact answers with a Wilson interval.

Leaves choosing the rows and deciding whether the adapter is good enough to others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune.base import use_precision
from finetune.batches import group_by_length
from finetune.codec import Json
from finetune.generate import Answer, generate_answers
from finetune.loss import AnswerLoss, build_batch
from finetune.tokens import TokenRow

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Losses:
    """Mean loss per trained token and each row's mean log-probability per answer token, in nats.

    `token_accuracy` is the share of trained tokens that the model thinks likeliest, given the right ones before.
    """

    mean: float
    token_accuracy: float
    row_logprobs: list[float]


@dataclass(frozen=True)
class Scores:
    """Held-out scores of one model; `answers` and `hits` are in the order of the rows."""

    losses: Losses
    answers: list[Answer]
    hits: list[bool]

    def summarise(self) -> dict[str, Json]:
        """Figures for result.json."""
        n, hits = len(self.hits), sum(self.hits)
        low, high = bound_share(hits, n)
        return {
            "loss": round(self.losses.mean, 6),
            "mean_logprob": round(sum(self.losses.row_logprobs) / len(self.losses.row_logprobs), 6),
            "exact_match": round(hits / n, 6),
            "exact_match_low": round(low, 6),
            "exact_match_high": round(high, 6),
            "stop_rate": round(sum(answer.stopped for answer in self.answers) / n, 6),
        }


def bound_share(hits: int, n: int) -> tuple[float, float]:
    """Wilson 95 % interval of a share. Source: Wilson 1927, JASA 22(158)."""
    share, z2 = hits / n, _Z95 * _Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def measure_losses(
    loss: AnswerLoss,
    rows: Sequence[TokenRow],
    *,
    batch_tokens: int,
    pad_id: int,
    device: str,
    on_part: Callable[[], None] = lambda: None,
) -> Losses:
    """Held-out loss and token accuracy of the model behind `loss`; no gradients, rows in their order.

    `on_part` is called after each of the batches.
    """
    precision = use_precision(device)
    total, count, hits = 0.0, 0, 0
    row_logprobs = [0.0] * len(rows)
    for part in group_by_length([len(row.ids) for row in rows], batch_tokens):
        batch = build_batch([rows[index] for index in part], pad_id=pad_id, device=device)
        with torch.inference_mode(), precision():
            values, is_hit = loss.score(batch)
        sizes = batch.learn[:, 1:].sum(1).tolist()
        for index, piece in zip(part, torch.split(values.cpu(), sizes), strict=True):
            row_logprobs[index] = -float(piece.mean())
        total += float(values.sum())
        count += len(values)
        hits += int(is_hit.sum())
        on_part()
    return Losses(mean=total / count, token_accuracy=hits / count, row_logprobs=row_logprobs)


def score_model(
    loss: AnswerLoss,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    *,
    batch_tokens: int,
    max_new_tokens: int,
    device: str,
    on_batch: Callable[[int], None],
    on_part: Callable[[], None],
) -> Scores:
    """Loss and greedy answers of the model behind `loss` as it stands.

    `on_batch` gets the rows answered so far; `on_part` is called between, after each pass of the model.
    """
    pad_id = tokenizer.eos_token_id
    losses = measure_losses(loss, rows, batch_tokens=batch_tokens, pad_id=pad_id, device=device, on_part=on_part)
    with use_precision(device)():
        answers = generate_answers(
            loss.model,
            tokenizer,
            [row.prompt for row in rows],
            max_new_tokens=max_new_tokens,
            device=device,
            on_batch=on_batch,
            on_pass=on_part,
        )
    hits = [answer.text.strip() == row.answer.strip() for answer, row in zip(answers, rows, strict=True)]
    return Scores(losses=losses, answers=answers, hits=hits)
