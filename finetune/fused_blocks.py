"""The two halves of a decoder layer, each as one step forward and one step backward written out by hand.

Leaves the products to `finetune.lora_group` and the whole decoder to `finetune.fused_decoder`. The residual stream is
fp32 (tokens, width), of the tokens that matter alone; only attention lays them out in rows. Everything between two
products is in the products' dtype.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import silu

from finetune.lora_group import LoraGroup

Tensor = torch.Tensor


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch stand, for its attention.

    `cos`, `sin` (seq, head) and the causal `mask` (seq, seq) are in the products' dtype. `places` (tokens,) says where
    in `rows`·seq each token stands. `going_on` (fewer tokens,) are those whose result anybody reads, None for all.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor
    rows: int
    places: Tensor
    going_on: Tensor | None = None

    @property
    def seq(self) -> int:
        """Places of a row."""
        return len(self.mask)

    @cached_property
    def read_places(self) -> Tensor:
        """`places` of the tokens whose result is read."""
        return self.places if self.going_on is None else self.places[self.going_on]

    def spread(self, flat: Tensor, places: Tensor) -> Tensor:
        """(len(places), width) in rows with zeros between: (rows·seq, width)."""
        return flat.new_zeros(self.rows * self.seq, flat.shape[1]).index_copy_(0, places, flat)


class Norm:
    """Root-mean-square norm with a frozen weight."""

    def __init__(self, module: Any) -> None:
        self.weight = module.weight.detach().float()
        self.eps = float(module.variance_epsilon)

    def write(self, x: Tensor, target: Tensor) -> Tensor:
        """Norm of `x` (rows, width) into `target`; returns the rows' factors, which `pull_back` needs."""
        factor = x.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_()
        torch.mul(x * factor, self.weight, out=target)
        return factor

    def pull_back(self, gradient: Tensor, x: Tensor, factor: Tensor, beside: Tensor) -> Tensor:
        """Gradient of `x`, plus the gradient `beside` that came round the block."""
        inner = gradient * self.weight
        unit = x * factor
        dot = (inner * unit).mean(-1, keepdim=True)
        return torch.addcmul(beside, inner.addcmul_(unit, dot, value=-1), factor)


class AttentionHalf:
    """x + o(attention(q, k, v of norm(x))) with grouped heads."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        part = layer.self_attn
        self.norm = Norm(layer.input_layernorm)
        self.read = LoraGroup([part.q_proj, part.k_proj, part.v_proj], dtype)
        self.write = LoraGroup([part.o_proj], dtype)
        self.head = int(part.head_dim)
        self.pairs = part.k_proj.base_layer.out_features // self.head
        self.group = self.write.width // (self.pairs * self.head)
        self.scale = 1 / math.sqrt(self.head)

    def run(self, x: Tensor, layout: Layout) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The half's result for the tokens that go on, and what its way back needs."""
        rows, seq = layout.rows, layout.seq
        given = self.read.take_input(len(x))
        factor = self.norm.write(x, given[:, : self.read.width])
        seen = self._split(layout.spread(self.read.project(given), layout.places), rows, seq)
        q = _turn(seen[0], layout.cos * self.scale, layout.sin * self.scale).view(rows * self.pairs, -1, self.head)
        k = _turn(seen[1], layout.cos, layout.sin).view(rows * self.pairs, seq, self.head)
        v = seen[2].reshape(rows * self.pairs, seq, self.head)
        scores = torch.bmm(q, k.transpose(1, 2)).view(-1, self.group, seq, seq).add_(layout.mask)
        shares = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype).view(len(q), -1, seq)
        heads = q.new_empty(rows * seq, self.write.width)
        self._heads(heads, rows, seq).copy_(torch.bmm(shares, v).view(rows, self.pairs, self.group, seq, self.head))
        mixed = self.write.take_input(len(layout.read_places))
        mixed[:, : self.write.width] = heads[layout.read_places]
        stayed = x if layout.going_on is None else x[layout.going_on]
        return stayed + self.write.project(mixed), (given, factor, q, k, v, shares, mixed)

    def pull_back(
        self, x: Tensor, kept: tuple[Tensor, ...], layout: Layout, *, beside: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients of x (None if not wanted) and of the adapters, from the gradient `beside` of the result."""
        given, factor, q, k, v, shares, mixed = kept
        rows, seq = layout.rows, layout.seq
        after = self.write.take_gradient(len(beside))
        after[:, : self.write.out].copy_(beside)
        found = self.write.pull_back(mixed, after)
        heads = layout.spread(self.write.pull_back_input(after), layout.read_places)
        back = self._heads(heads, rows, seq).reshape(len(q), -1, self.head)
        spread = q.new_empty(rows * seq, self.read.out)
        into = self._split(spread, rows, seq)
        into[2].copy_(torch.bmm(shares.transpose(1, 2), back).view(rows, self.pairs, seq, self.head))
        scores = torch.ops.aten._softmax_backward_data(torch.bmm(back, v.transpose(1, 2)), shares, -1, shares.dtype)
        _turn(torch.bmm(scores, k).view(into[0].shape), layout.cos * self.scale, layout.sin * -self.scale, into[0])
        _turn(torch.bmm(scores.transpose(1, 2), q).view(into[1].shape), layout.cos, -layout.sin, into[1])
        before = self.read.take_gradient(len(x))
        before[:, : self.read.out] = spread[layout.places]
        found = self.read.pull_back(given, before) + found
        if not wants_input:
            return None, found
        if layout.going_on is not None:
            beside = torch.zeros_like(x).index_copy_(0, layout.going_on, beside)
        return self.norm.pull_back(self.read.pull_back_input(before), x, factor, beside), found

    def _heads(self, flat: Tensor, rows: int, seq: int) -> Tensor:
        """(rows·seq, ≥ width) seen as (rows, pairs, group, seq, head)."""
        part = flat[:, : self.write.width].view(rows, seq, self.pairs, self.group, self.head)
        return part.permute(0, 2, 3, 1, 4)

    def _split(self, flat: Tensor, rows: int, seq: int) -> tuple[Tensor, Tensor, Tensor]:
        """q (rows, pairs, group, seq, head), k and v (rows, pairs, seq, head) as views of (rows·seq, ≥ out)."""
        q_end, k_end = self.write.width, self.write.width + self.pairs * self.head
        k, v = (
            part.view(rows, seq, self.pairs, self.head).transpose(1, 2)
            for part in (flat[:, q_end:k_end], flat[:, k_end : self.read.out])
        )
        return self._heads(flat, rows, seq), k, v


class MlpHalf:
    """x + down(silu(gate(norm(x))) · up(norm(x)))."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        part = layer.mlp
        self.norm = Norm(layer.post_attention_layernorm)
        self.read = LoraGroup([part.gate_proj, part.up_proj], dtype)
        self.write = LoraGroup([part.down_proj], dtype)

    def run(self, x: Tensor, _layout: Layout) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The half's result and what its way back needs."""
        given = self.read.take_input(len(x))
        factor = self.norm.write(x, given[:, : self.read.width])
        both = self.read.project(given)
        gate, up = both[:, : self.write.width], both[:, self.write.width :]
        opened = silu(gate)
        passed = self.write.take_input(len(x))
        torch.mul(opened, up, out=passed[:, : self.write.width])
        return x + self.write.project(passed), (given, factor, both, opened, passed)

    def pull_back(
        self, x: Tensor, kept: tuple[Tensor, ...], _layout: Layout, *, beside: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients of x and of the adapters, from the gradient `beside` of the result."""
        given, factor, both, opened, passed = kept
        width = self.write.width
        after = self.write.take_gradient(len(x))
        after[:, : self.write.out].copy_(beside)
        found = self.write.pull_back(passed, after)
        back = self.write.pull_back_input(after)
        before = self.read.take_gradient(len(x))
        torch.mul(back, opened, out=before[:, width : 2 * width])
        before[:, :width].copy_(torch.ops.aten.silu_backward(back.mul_(both[:, width:]), both[:, :width]))
        found = self.read.pull_back(given, before) + found
        if not wants_input:
            return None, found
        return self.norm.pull_back(self.read.pull_back_input(before), x, factor, beside), found


Half = AttentionHalf | MlpHalf


class RunHalf(torch.autograd.Function):
    """One half for autograd: differentiable in x (tokens, width) fp32 and in the half's adapters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Half, layout: Layout, *_adapters: Tensor) -> Tensor:
        """The half's result."""
        result, kept = half.run(x, layout)
        ctx.x, ctx.half, ctx.layout, ctx.kept = x, half, layout, kept
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients in the order of `forward`'s arguments."""
        passed, found = ctx.half.pull_back(
            ctx.x, ctx.kept, ctx.layout, beside=gradients[0].contiguous(), wants_input=ctx.needs_input_grad[0]
        )
        ctx.kept = ctx.x = None
        return passed, None, None, *found


def _turn(source: Tensor, cos: Tensor, sin: Tensor, target: Tensor | None = None) -> Tensor:
    """Rotate (…, seq, head) by position, halves of the head paired; with -sin it is the way back."""
    half = source.shape[-1] // 2
    target = torch.empty(source.shape, dtype=source.dtype, device=source.device) if target is None else target
    torch.mul(source, cos, out=target)
    target[..., :half].addcmul_(source[..., half:], sin[..., :half], value=-1)
    target[..., half:].addcmul_(source[..., :half], sin[..., half:])
    return target
