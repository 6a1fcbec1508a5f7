"""Answer-only loss: the output head runs on trained positions alone, proven equal to the model's own logits.

Steps go through `finetune.fused_decoder` where it is proven equal too; scoring always uses the model's own code.

Leaves optimizer, schedule and reports to others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune.fused_decoder import FusedDecoder
from finetune.tokens import TokenRow

_TOLERANCE = 2e-2
_TOKEN_TOLERANCE = 0.25


@dataclass(frozen=True)
class AnswerBatch:
    """`ids` (batch, seq) int64, right-padded; `learn` (batch, seq) bool, true where the token is to be predicted."""

    ids: torch.Tensor
    learn: torch.Tensor


def build_batch(rows: Sequence[TokenRow], *, pad_id: int, device: str) -> AnswerBatch:
    """Right-padded tensors of some rows. Under a causal mask pads on the right change no real position."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    learn = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        for start, end in row.learn:
            learn[index, start:end] = True
    return AnswerBatch(ids=ids.to(device), learn=learn.to(device))


class AnswerLoss:
    """Per-token loss of the answers of a batch under one PEFT model."""

    def __init__(self, model: Any, fused: FusedDecoder | None = None) -> None:
        self.model = model
        self._fused_to_prove = fused
        self._fused: FusedDecoder | None = None
        causal = model.get_base_model()
        self._decoder = causal.get_decoder()
        self._head = causal.get_output_embeddings()
        self._head_only = False

    def prove_head(self, batch: AnswerBatch) -> bool:
        """Use the head on trained positions only if that gives the model's own logits (some models scale them)."""
        with torch.no_grad():
            full = self._pick_from_full(batch).float()
            short = self._pick_before_head(batch).float()
        self._head_only = bool((full - short).abs().max() <= _TOLERANCE * full.abs().max().clamp(min=1.0))
        return self._head_only

    def prove_fused(self, batch: AnswerBatch) -> bool:
        """Use the fused decoder for steps only if each token's loss is the model's own, but for rounding."""
        if self._fused_to_prove is None:
            return False
        with torch.no_grad():
            own, fused = self.measure(batch), self._measure_fused(self._fused_to_prove, batch)
        is_near = bool((own.mean() - fused.mean()).abs() <= _TOLERANCE * own.mean().clamp(min=1.0))
        if is_near and bool((own - fused).abs().max() <= _TOKEN_TOLERANCE):
            self._fused = self._fused_to_prove
        return self._fused is not None

    def measure(self, batch: AnswerBatch) -> torch.Tensor:
        """Cross entropy per trained token, in row order: (trained tokens,) float32, nats."""
        if self._fused is not None and torch.is_grad_enabled():
            return self._measure_fused(self._fused, batch)
        logits, targets = self._pick_logits(batch)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    def score(self, batch: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """`measure` by the model's own code, and whether each token is its likeliest: (trained tokens,) bool."""
        logits, targets = self._pick_logits(batch)
        values = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        return values, logits.argmax(-1) == targets

    def _pick_logits(self, batch: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """(trained tokens, vocabulary) logits and (trained tokens,) int64 targets, in row order."""
        logits = self._pick_before_head(batch) if self._head_only else self._pick_from_full(batch)
        return logits, batch.ids[:, 1:][batch.learn[:, 1:]]

    def _measure_fused(self, fused: FusedDecoder, batch: AnswerBatch) -> torch.Tensor:
        with torch.autocast(batch.ids.device.type, enabled=False):
            return fused.measure(batch.ids, batch.learn)

    def _pick_before_head(self, batch: AnswerBatch) -> torch.Tensor:
        hidden = self._decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits: torch.Tensor = self._head(hidden[:, :-1][batch.learn[:, 1:]])
        return logits

    def _pick_from_full(self, batch: AnswerBatch) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=batch.ids, use_cache=False).logits
        return logits[:, :-1][batch.learn[:, 1:]]
