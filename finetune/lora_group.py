"""LoRA layers that read the same input as one product forward and one backward, with no gradient for what is frozen.

Leaves what happens between the products to `finetune.fused_blocks`. The low-rank part and the bias are further columns
of the product, so nothing is added to its result afterwards.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

_ALIGNED = 32


def is_plain(layer: Any) -> bool:
    """One adapter on an ordinary linear layer: no variant such as DoRA, no dropout, no bias of its own."""
    from peft.tuners.lora.layer import Linear

    return (
        type(layer) is Linear
        and type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
        and layer.lora_B["default"].bias is None
    )


class LoraGroup:
    """Side-by-side layers y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ of one input (rows, width); y is (rows, out)."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self._downs = [layer.lora_A["default"].weight for layer in layers]
        self._ups = [layer.lora_B["default"].weight for layer in layers]
        self._scales = [float(layer.scaling["default"]) for layer in layers]
        self._ranks, self._outs = _span(self._downs), _span(self._ups)
        self.width, self.out = int(self._downs[0].shape[1]), self._outs[-1].stop
        self._end = self.width + self._ranks[-1].stop
        biases = [layer.base_layer.bias for layer in layers]
        self._has_bias = any(bias is not None for bias in biases)
        columns = -(-(self._end + 1) // _ALIGNED) * _ALIGNED if self._has_bias else self._end
        weight = torch.cat([layer.base_layer.weight.detach() for layer in layers]).to(dtype)
        self._forward = weight.new_zeros(self.out, columns)
        self._back = weight.new_zeros(self.out + self._ranks[-1].stop, self.width)
        self._forward[:, : self.width] = weight
        self._back[: self.out] = weight
        for span, bias in zip(self._outs, biases, strict=True):
            if bias is not None:
                self._forward[span, self._end] = bias.detach().to(dtype)

    @property
    def adapters(self) -> list[torch.Tensor]:
        """All A, then all B, in the order in which `pull_back` gives their gradients."""
        return [*self._downs, *self._ups]

    def refresh(self) -> None:
        """Take over the adapters' present values; once before each step."""
        with torch.no_grad():
            for down, up, scale, rank, out in zip(
                self._downs, self._ups, self._scales, self._ranks, self._outs, strict=True
            ):
                self._back[self.out + rank.start : self.out + rank.stop].copy_(down)
                self._forward[out, self.width + rank.start : self.width + rank.stop].copy_(up * scale)

    def take_input(self, rows: int) -> torch.Tensor:
        """A buffer whose first `width` columns the caller fills with the input of `project`."""
        given = self._forward.new_empty(rows, self._forward.shape[1])
        if self._has_bias:
            given[:, self._end :] = 0
            given[:, self._end] = 1
        return given

    def take_gradient(self, rows: int) -> torch.Tensor:
        """A buffer whose first `out` columns the caller fills with the gradient of the result of `project`."""
        return self._back.new_empty(rows, self._back.shape[0])

    def project(self, given: torch.Tensor) -> torch.Tensor:
        """The layers' results side by side: (rows, out)."""
        torch.mm(given[:, : self.width], self._back[self.out :].t(), out=given[:, self.width : self._end])
        return torch.mm(given, self._forward.t())

    def pull_back(self, given: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of the adapters in fp32; completes `gradient` for `pull_back_input`."""
        low, result = given[:, self.width : self._end], gradient[:, : self.out]
        torch.mm(result, self._forward[:, self.width : self._end], out=gradient[:, self.out :])
        downs = torch.mm(gradient[:, self.out :].t(), given[:, : self.width]).float()
        ups = torch.mm(low.t(), result).float()
        found = [downs[rank] for rank in self._ranks]
        for rank, out, scale in zip(self._ranks, self._outs, self._scales, strict=True):
            found.append(ups[rank, out].t().mul(scale))
        return found

    def pull_back_input(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient of the input (rows, width), after `pull_back`."""
        return torch.mm(gradient, self._back)


def _span(weights: Sequence[torch.Tensor]) -> list[slice]:
    ends = list(accumulate(weight.shape[0] for weight in weights))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
