"""The training loop of a demo base: Muon for matrices, AdamW for the rest, bf16 where the CPU has it.

Caching and folders are left to `train`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from examples.bases.batches import TokenBatch, build_batches
from examples.bases.corpus import generate_rows
from examples.bases.muon import make_muon
from examples.bases.recipes import BaseRecipe
from examples.bases.rows import Row
from examples.bases.steps_display import show_steps
from examples.bases.tokenizer import IGNORED, train_tokenizer
from finetune.lora_product import has_fast_bf16

_TOKENIZER_ROWS = 6000
LETTERS = tuple(Row(text=role) for role in ("system", "user", "assistant"))
"""All that a tokenizer of letters learns besides the position marks: the roles of a chat are one token each."""
_WARM_UP_STEPS = 20
_DECAY_SHARE = 0.4
_FINAL_LR_SHARE = 0.05


@dataclass(frozen=True)
class TrainedModel:
    """What a training gave: parameters, tokens seen, and the smoothed loss in nats a learnt token."""

    parameters: int
    tokens: int
    loss: float


def train_model(recipe: BaseRecipe, out: Path) -> TrainedModel:
    """Train from scratch and save model, configuration and tokenizer into `out`."""
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(
        LETTERS if recipe.by_letter else generate_rows(recipe.mix, seed=recipe.seed, count=_TOKENIZER_ROWS),
        vocab_size=recipe.vocab_size,
        max_length=recipe.max_position,
    )
    model = build_model(recipe, tokenizer)
    # Rows of 30 to 60 tokens: the plain products beat the fused kernel on a CPU (4.9 s against 6.1 s for 60 steps).
    model.set_attn_implementation("eager")
    tokens, loss = _run_steps(recipe, model, build_batches(recipe, tokenizer))
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    return TrainedModel(parameters=model.num_parameters(), tokens=tokens, loss=loss)


def build_model(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A freshly initialised Qwen2 of the recipe's shape."""
    config = Qwen2Config(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.max_position,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]


def _run_steps(recipe: BaseRecipe, model: Qwen2ForCausalLM, batches: Iterator[TokenBatch]) -> tuple[int, float]:
    """Tokens seen without padding, and the smoothed loss."""
    optimizers = _build_optimizers(recipe, model)
    full_lrs = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    tokens, smoothed = 0, 0.0
    display = show_steps(recipe.name, recipe.steps)
    for step, (share, batch) in enumerate(zip(_lr_shares(recipe.steps), batches, strict=True)):
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        for group, lr in zip(groups, full_lrs, strict=True):
            group["lr"] = lr * share
        loss = _compute_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens += batch.tokens
        smoothed = loss.item() if step == 0 else 0.95 * smoothed + 0.05 * loss.item()
        display(step + 1, smoothed)
    return tokens, smoothed


def _build_optimizers(recipe: BaseRecipe, model: Qwen2ForCausalLM) -> list[torch.optim.Optimizer]:
    inner = list(model.model.layers.parameters())
    matrices = [weight for weight in inner if weight.ndim == 2]
    matrix_ids = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in matrix_ids]
    return [
        make_muon(matrices, recipe.matrix_lr),
        torch.optim.AdamW(others, lr=recipe.vector_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _compute_loss(model: Qwen2ForCausalLM, batch: TokenBatch) -> torch.Tensor:
    """Mean cross entropy over learnt positions. Padding on the right changes nothing before it: no mask is needed."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bf16("cpu")):
        hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
        targets = batch.labels[:, 1:]
        learnt = targets != IGNORED
        # The head only sees positions that are learnt: it is a third of the work of so small a model.
        logits = model.lm_head(hidden[learnt])
    return cross_entropy(logits.float(), targets[learnt])


def _lr_shares(steps: int) -> Iterator[float]:
    """Warm up, hold, then fall in a line: the share of the full learning rate at each step."""
    decay_steps = max(1, round(steps * _DECAY_SHARE))
    for step in range(steps):
        rise = (step + 1) / _WARM_UP_STEPS
        fall = max(_FINAL_LR_SHARE, (steps - step) / decay_steps)
        yield min(1.0, rise, fall)
