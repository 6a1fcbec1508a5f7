"""A LoRA decoder of the Llama family and its answer loss, computed with few and large operations on a CPU.

Leaves other families, GPUs, dropout, scoring and generating to the model's own code: `build_fused_decoder` returns None
for them, and `finetune.loss` uses what it gets only after a comparison with the model itself (ADR 0026).
"""

from dataclasses import replace
from typing import Any

import torch

from finetune.fused_blocks import AttentionHalf, Half, Layout, MlpHalf, Norm, RunHalf
from finetune.lora_group import is_plain

_FAMILIES = ("LlamaModel", "Qwen2Model")
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LONG_ROW_TOKENS = 512
_LOGITS_AT_ONCE = 1 << 19


class FusedDecoder:
    """Per-token answer losses of one PEFT model; gradients reach its LoRA weights alone."""

    def __init__(self, decoder: Any, head: Any, dtype: torch.dtype) -> None:
        self._decoder = decoder
        self._head = head.weight.detach().to(dtype)
        self._norm = Norm(decoder.norm)
        self._dtype = dtype
        self._halves: list[Half] = []
        for layer in decoder.layers:
            self._halves += [AttentionHalf(layer, dtype), MlpHalf(layer, dtype)]

    def measure(self, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the positions that `learn` marks: (trained tokens,) float32, nats, in row order."""
        for half in self._halves:
            half.read.refresh()
            half.write.refresh()
        wanted = learn[:, 1:]
        needed = wanted.flip(1).cumsum(1).flip(1) > 0  # no answer reads what comes after the row's last one
        layout = self._lay_out(needed)
        x = self._decoder.embed_tokens(ids[:, :-1][needed]).float()
        for half in self._halves[:-2]:
            x = _run(half, x, layout)
        last = replace(layout, going_on=wanted[needed].nonzero()[:, 0])
        for half in self._halves[-2:]:
            x = _run(half, x, last)
        losses: torch.Tensor = _HeadLoss.apply(x, ids[:, 1:][wanted], self._norm, self._head)  # type: ignore[no-untyped-call]
        return losses

    def _lay_out(self, needed: torch.Tensor) -> Layout:
        rows, seq = needed.shape
        cos, sin = self._decoder.rotary_emb(self._head, torch.arange(seq, device=needed.device)[None])
        mask = torch.full((seq, seq), -torch.inf, dtype=self._dtype, device=needed.device).triu_(1)
        places = needed.flatten().nonzero()[:, 0]
        return Layout(cos=cos[0].to(self._dtype), sin=sin[0].to(self._dtype), mask=mask, rows=rows, places=places)


def build_fused_decoder(model: Any, *, device: str, mean_tokens: float) -> FusedDecoder | None:
    """The fused way through a PEFT model, or None where its own code has to be used."""
    from finetune.lora_product import has_fast_bf16

    causal = model.get_base_model()
    decoder, head = causal.get_decoder(), causal.get_output_embeddings()
    config = causal.config
    if device != "cpu" or mean_tokens > _LONG_ROW_TOKENS or type(decoder).__name__ not in _FAMILIES:
        return None
    if config.hidden_act != "silu" or getattr(config, "use_sliding_window", False) or head.bias is not None:
        return None
    if not all(is_plain(part) for layer in decoder.layers for part in _list_parts(layer)):
        return None
    return FusedDecoder(decoder, head, torch.bfloat16 if has_fast_bf16(device) else torch.float32)


def _run(half: Half, x: torch.Tensor, layout: Layout) -> torch.Tensor:
    result: torch.Tensor = RunHalf.apply(x, half, layout, *half.read.adapters, *half.write.adapters)  # type: ignore[no-untyped-call]
    return result


def _list_parts(layer: Any) -> list[Any]:
    return [getattr(layer.self_attn, name, None) or getattr(layer.mlp, name, None) for name in _LAYERS]


class _HeadLoss(torch.autograd.Function):
    """Norm, head and cross entropy of some positions; the gradient is made on the way, some rows at a time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, targets: torch.Tensor, norm: Norm, head: torch.Tensor) -> torch.Tensor:
        hidden = head.new_empty(x.shape)
        factor = norm.write(x, hidden)
        losses = x.new_empty(len(x))
        gradient = torch.empty_like(hidden)
        rows = max(16, _LOGITS_AT_ONCE // len(head))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            shares = torch.log_softmax(torch.mm(hidden[part], head.t()).float(), -1)
            aim = targets[part, None]
            losses[part] = -shares.gather(1, aim)[:, 0]
            shares.exp_().scatter_add_(1, aim, shares.new_full(aim.shape, -1.0))
            gradient[part] = torch.mm(shares.to(head.dtype), head)
        ctx.norm, ctx.kept = norm, (x, factor, gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, factor, gradient = ctx.kept
        passed = ctx.norm.pull_back(gradient * gradients[0][:, None], x, factor, torch.zeros_like(x))
        return passed, None, None, None
