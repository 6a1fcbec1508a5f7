"""LoRA on a CPU in vLLM, a few matrix products a step instead of a copy of the weights for every token.

Stock vLLM 0.32 gathers A and B anew for each token (`lora_ops.bgmv_*`), which is most of a prefill; and for a row
without an adapter (slot -1) it gathers the last slot, so that a call of the base beside calls of adapters is answered
with whichever adapter is there. Which adapter sits in which slot is left to vLLM; `engine_start` puts `GroupedPunica`
in the place of its class.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

FEW_ROWS = 128
MASKED_MOST = 2**16
"""Up to so many rows, and rows times adapters times rank, all rows meet all adapters: few products beat many small."""
Rows = torch.Tensor | slice
Stacked = Sequence[torch.Tensor]
"""A weight of all slots for each slice of a layer: A (slots, 1, rank, in), B (slots, 1, slice, rank)."""


class Step:
    """The rows of one step by slot: `rows_of` their indices, `shares` (rows, adapters) 1 where a row uses it."""

    def __init__(self, slots: Sequence[int]) -> None:
        self.count = len(slots)
        found: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot >= 0:
                found.setdefault(slot, []).append(row)
        self.slots = sorted(found)
        self.rows_of: list[Rows] = [_as_index(found[slot]) for slot in self.slots]
        self.shares = torch.zeros(self.count, len(self.slots))
        for number, rows in enumerate(self.rows_of):
            self.shares[rows, number] = 1

    @property
    def is_one(self) -> bool:
        """Return whether every row uses the same adapter."""
        return len(self.slots) == 1 and self.rows_of[0] == slice(0, self.count)


class Gathered:
    """A layer's weights of a step's adapters in fp32, side by side: `a` (in, slices x adapters x rank), then `b`s."""

    def __init__(self, a_stacked: Stacked, b_stacked: Stacked, slots: Sequence[int]) -> None:
        chosen = torch.tensor(slots)
        parts = [each.index_select(0, chosen).view(-1, each.shape[-1]) for each in a_stacked]
        self.a = torch.cat(parts).float().T.contiguous()
        self.b = [
            each.index_select(0, chosen)[:, 0].float().transpose(1, 2).reshape(-1, each.shape[-2]) for each in b_stacked
        ]


class GroupedPunica(PunicaWrapperCPU):
    """vLLM's interface of LoRA products; rows are sorted once a step, weights gathered once a set of adapters."""

    def update_metadata(self, mapping: Any, lora_index_to_id: list[int | None], *others: Any, **named: Any) -> None:
        """Take the rows of a step; an id names the same weights for ever, so they are gathered anew only for others."""
        super().update_metadata(mapping, lora_index_to_id, *others, **named)
        self._step = Step(self.token_lora_indices.tolist())
        known = [(slot, lora_index_to_id[slot]) for slot in self._step.slots]
        if known != getattr(self, "_known", None):
            self._known, self._gathered = known, dict[int, Gathered]()

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Stacked,
        lora_b_stacked: Stacked,
        scale: float,
        output_slices: Sequence[int],
        **_named: Any,
    ) -> None:
        """Add `scale * x @ A.T @ B.T` to each slice of `y`."""
        out, given, step = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1]), self._step
        rank = lora_a_stacked[0].shape[-2]
        if not step.slots:
            return
        if step.count > FEW_ROWS or step.count * len(step.slots) * rank > MASKED_MOST:
            add_by_group(out, given, lora_a_stacked, lora_b_stacked, scale, output_slices, step)
            return
        key = lora_a_stacked[0].data_ptr()
        gathered = self._gathered.get(key)
        if gathered is None:
            gathered = self._gathered[key] = Gathered(lora_a_stacked, lora_b_stacked, step.slots)
        add_at_once(out, given, gathered, scale, output_slices, step)

    def add_lora_logits(
        self, y: torch.Tensor, x: torch.Tensor, lora_a_stacked: Any, lora_b_stacked: Any, scale: float, **_named: Any
    ) -> None:
        """The same for the rows that are sampled."""
        out, given = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        width = min(out.shape[-1], lora_b_stacked.shape[-2])
        step = Step(self.sampler_indices.tolist())
        add_by_group(out, given, [lora_a_stacked], [lora_b_stacked], scale, [width], step)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **_named: Any
    ) -> None:
        """Add `x @ B.T` to `y`; what an embedding's A has picked is in `x` already."""
        out, given = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in zip(self._step.slots, self._step.rows_of, strict=True):
            out[rows] += given[rows].to(out.dtype) @ lora_b_stacked[slot, 0].T.to(out.dtype)


def add_at_once(
    out: torch.Tensor, x: torch.Tensor, weights: Gathered, scale: float, widths: Sequence[int], step: Step
) -> None:
    """Let every row meet every adapter, strike out what is not its own, and add the rest to its slices of `out`."""
    low = x.float() @ weights.a
    if not step.is_one:
        shape = (step.count, len(widths), len(step.slots), -1)
        low = (low.view(shape) * step.shares[:, None, :, None]).view(step.count, -1)
    each, offset = low.shape[-1] // len(widths), 0
    for number, (b, width) in enumerate(zip(weights.b, widths, strict=True)):
        added = low[:, number * each : (number + 1) * each] @ b[:, :width]
        out[:, offset : offset + width] += added if scale == 1 else scale * added
        offset += width


def add_by_group(
    out: torch.Tensor,
    x: torch.Tensor,
    a_stacked: Stacked,
    b_stacked: Stacked,
    scale: float,
    widths: Sequence[int],
    step: Step,
) -> None:
    """Multiply the rows of each adapter by its own weights and add them to their slices of `out`."""
    for slot, rows in zip(step.slots, step.rows_of, strict=True):
        own = x[rows]
        low = own @ torch.cat([a[slot, 0] for a in a_stacked]).T.to(own.dtype)
        lows, offset = low.to(out.dtype).chunk(len(a_stacked), dim=1), 0
        for part, b, width in zip(lows, b_stacked, widths, strict=True):
            added = part @ b[slot, 0, :width].T.to(out.dtype)
            out[rows, offset : offset + width] += added if scale == 1 else scale * added
            offset += width


def _as_index(rows: list[int]) -> Rows:
    first, end = rows[0], rows[-1] + 1
    return slice(first, end) if end - first == len(rows) else torch.tensor(rows)
