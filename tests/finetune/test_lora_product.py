"""LoraProduct against PEFT's own layers: the same product and the same gradients, and none for what is frozen."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from finetune.lora_product import has_fast_bf16, speed_up_products

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 16)
        self.second = torch.nn.Linear(16, 8, bias=False)

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x)))


def _build(**options: Any) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["first", "second"], init_lora_weights=False, **options)
    return get_peft_model(_Net().requires_grad_(False), config)  # type: ignore[arg-type]


@pytest.mark.parametrize("fast", [False, True])
def test_product_and_gradients_are_those_of_peft(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("finetune.lora_product.has_fast_bf16", lambda device: fast)
    plain, ours = _build(), _build()
    assert speed_up_products(ours, "cpu") == 2
    x = torch.randn(3, 5, 24)
    found = []
    for model in (plain, ours):
        out = model(x)
        out.float().square().sum().backward()
        found.append((out.detach().float(), [weight.grad for weight in model.parameters() if weight.requires_grad]))
    tolerance: dict[str, float] = {"rtol": 5e-2, "atol": 2e-1} if fast else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found[1][0], found[0][0], **tolerance)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0.1 if fast else 1e-4, atol=1.0 if fast else 1e-5)
    assert all(weight.grad is None for weight in ours.parameters() if not weight.requires_grad)


def test_scoring_and_a_disabled_adapter_use_pefts_layers() -> None:
    plain, ours = _build(), _build()
    speed_up_products(ours, "cpu")
    x = torch.randn(2, 24)
    with torch.no_grad():
        assert torch.equal(plain(x), ours(x))
    with plain.disable_adapter(), ours.disable_adapter():
        assert torch.equal(plain(x), ours(x))


def test_dropout_and_variants_are_left_to_peft() -> None:
    assert speed_up_products(_build(lora_dropout=0.1), "cpu") == 0
    assert speed_up_products(_build(use_dora=True), "cpu") == 0


def test_bf16_is_used_where_the_processor_has_it() -> None:
    assert has_fast_bf16("cuda") is True
    assert has_fast_bf16("cpu") is bool(torch.cpu.get_capabilities().get("avx512_bf16"))
