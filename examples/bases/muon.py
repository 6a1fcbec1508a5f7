"""Muon for the matrices of a demo base, in a number format that the processor has products for.

PyTorch's own works in bf16 always. A processor without bf16 computes that 30 times slower than fp32 (0.61 s against
0.02 s for one matrix of 256 by 768, AMD EPYC with AVX2): a base took two hours there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from finetune.lora_product import has_fast_bf16

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-7
_MOMENTUM = 0.95


def make_muon(matrices: Sequence[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return PyTorch's Muon where bf16 is fast, else the same in fp32; no weight decay."""
    if has_fast_bf16("cpu"):
        return torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, momentum=_MOMENTUM)
    return SinglePrecisionMuon(matrices, lr)


class SinglePrecisionMuon(torch.optim.Optimizer):
    """`torch.optim.Muon` with its defaults (Nesterov, learning rate by shape as Keller Jordan's), in fp32."""

    def __init__(self, matrices: Sequence[torch.nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients that are there; no closure."""
        if closure is not None:
            raise TypeError("SinglePrecisionMuon takes no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight.grad))
                average.lerp_(weight.grad, 1 - _MOMENTUM)
                update = orthogonalize(weight.grad.lerp(average, _MOMENTUM))
                weight.add_(update, alpha=-group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with singular values around 1, by five Newton-Schulz iterations; same shape and format."""
    first, second, third = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if is_tall else matrix
    found = found / found.norm().clamp(min=_LEAST_NORM)
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=second, alpha=third), found, beta=first)
    return found.T if is_tall else found
