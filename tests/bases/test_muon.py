"""Muon in fp32 takes the steps that PyTorch's takes in bf16, but for rounding."""

import pytest
import torch

from examples.bases import muon


@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (32, 32)])
def test_single_precision_takes_the_same_steps(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    start = torch.randn(shape)
    gradients = [torch.randn(shape) for _ in range(3)]
    ends = []
    for build in (muon.SinglePrecisionMuon, lambda matrices, lr: torch.optim.Muon(matrices, lr=lr, weight_decay=0.0)):
        weight = torch.nn.Parameter(start.clone())
        optimizer = build([weight], 0.02)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach() - start)
    assert (ends[0] - ends[1]).norm() < 0.03 * ends[1].norm()


def test_a_step_has_singular_values_around_one() -> None:
    torch.manual_seed(2)
    values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(40, 64)))
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("fast", [True, False])
def test_the_processor_decides(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_fast_bf16", lambda _device: fast)
    made = muon.make_muon([torch.nn.Parameter(torch.zeros(2, 3))], 0.01)
    assert isinstance(made, torch.optim.Muon) is fast
