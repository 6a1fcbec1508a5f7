"""The fused decoder against the model's own code: the same losses, the same gradients, and nobody else's models."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from finetune.fused_decoder import build_fused_decoder
from finetune.loss import AnswerBatch, AnswerLoss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
_SHAPE: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_FAMILIES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_SHAPE, tie_word_embeddings=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE, tie_word_embeddings=False, mlp_bias=False)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE, head_dim=16)),
}


def _build(family: str, *, seed: int = 5, **options: Any) -> Any:
    torch.manual_seed(seed)
    base: Any = _FAMILIES[family]()
    with torch.no_grad():
        for name, weight in base.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                weight.normal_(0.5, 0.3)
    base.requires_grad_(False)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, **options)
    return get_peft_model(base, config)


def _batch() -> AnswerBatch:
    torch.manual_seed(6)
    ids = torch.randint(0, 90, (3, 17))
    learn = torch.zeros_like(ids, dtype=torch.bool)
    for row, (start, end) in enumerate(((4, 17), (9, 12), (1, 5))):
        learn[row, start:end] = True
    return AnswerBatch(ids=ids, learn=learn)


def _find_gradients(model: Any, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    (losses * torch.linspace(0.5, 1.5, len(losses))).sum().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("fast", [False, True])
def test_losses_and_gradients_are_the_models_own(monkeypatch: pytest.MonkeyPatch, family: str, fast: bool) -> None:
    monkeypatch.setattr("finetune.lora_product.has_fast_bf16", lambda device: fast)
    model, batch = _build(family), _batch()
    own = AnswerLoss(model).measure(batch)
    wanted = _find_gradients(model, own)
    fused = build_fused_decoder(model, device="cpu", mean_tokens=17)
    assert fused is not None
    losses = fused.measure(batch.ids, batch.learn)
    found = _find_gradients(model, losses)
    torch.testing.assert_close(losses, own.detach(), rtol=0, atol=0.1 if fast else 1e-4)
    assert set(found) == set(wanted) == {name for name, weight in model.named_parameters() if weight.requires_grad}
    worst = max(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)
    assert worst < (0.06 if fast else 1e-4)


def test_the_adapters_values_of_each_step_are_used() -> None:
    model, batch = _build("qwen2"), _batch()
    fused = build_fused_decoder(model, device="cpu", mean_tokens=17)
    assert fused is not None
    first = fused.measure(batch.ids, batch.learn).detach()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.mul_(3)
    assert (fused.measure(batch.ids, batch.learn) - first).abs().max() > 0.1


def test_what_it_does_not_know_is_left_to_the_model() -> None:
    assert build_fused_decoder(_build("qwen3"), device="cpu", mean_tokens=17) is None
    assert build_fused_decoder(_build("qwen2", lora_dropout=0.1), device="cpu", mean_tokens=17) is None
    assert build_fused_decoder(_build("qwen2", use_dora=True), device="cpu", mean_tokens=17) is None
    assert build_fused_decoder(_build("qwen2"), device="cpu", mean_tokens=4000) is None
    assert build_fused_decoder(_build("qwen2"), device="cuda", mean_tokens=17) is None


def test_a_decoder_that_computes_something_else_is_found_out() -> None:
    model, batch = _build("llama"), _batch()
    right = AnswerLoss(model, build_fused_decoder(model, device="cpu", mean_tokens=17))
    right.prove_head(batch)
    assert right.prove_fused(batch) is True
    doubted = AnswerLoss(model, build_fused_decoder(_build("llama", seed=6), device="cpu", mean_tokens=17))
    assert doubted.prove_fused(batch) is False
    assert torch.equal(doubted.measure(batch), AnswerLoss(model).measure(batch))
