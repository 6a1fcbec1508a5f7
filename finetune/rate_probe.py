"""The optional learning-rate probe: some steps at half, once and twice the recipe's rate, on at most 5 % of the tokens.

Leaves the default rate and its bounds to recipe. Plan and train find the same value: seed, rows, steps are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from finetune.base import add_adapter, load_model, use_training_precision
from finetune.batches import Batch
from finetune.evaluate import measure_losses
from finetune.fused_decoder import build_fused_decoder
from finetune.lora_product import speed_up_products
from finetune.loss import AnswerLoss, build_batch
from finetune.prepare import Prepared, digest_plan
from finetune.recipe import read_count, read_number
from finetune.recipe_bounds import BOUNDS
from finetune.spec import RunSpec, Source, Value

_FACTORS = (1.0, 0.5, 2.0)
_SHARE = 0.05
_LEAST_STEPS = 8
_WARMUP_STEPS = 4
_HELD_OUT_ROWS = 64
_LEAST_GAIN = 0.002


def settle_rate(prepared: Prepared, spec: RunSpec, on_part: Callable[[], None] = lambda: None) -> Prepared:
    """`prepared` with the probed learning rate where `probe_learning_rate` is wished and no rate is given.

    `on_part` is called before the base is loaded and after each step and look.
    """
    wish = spec.recipe.get("probe_learning_rate")
    if wish is None or wish.value != 1 or "learning_rate" in spec.recipe:
        return prepared
    recipe = {**prepared.recipe, "learning_rate": _probe(prepared, spec, on_part)}
    return replace(prepared, recipe=recipe, plan_digest=digest_plan(prepared, recipe, seed=spec.seed))


def choose_steps(prepared: Prepared) -> Sequence[Batch]:
    """The plan's first batches, as many as all tries together may take; looks at the held-out rows count too."""
    looks = sum(prepared.valid.lengths[:_HELD_OUT_ROWS])
    left = int(_SHARE * prepared.tokens / len(_FACTORS)) - looks
    chosen: list[Batch] = []
    for batch in prepared.batches:
        left -= sum(prepared.train.lengths[row] for row in batch)
        if left < 0:
            break
        chosen.append(batch)
    return chosen


def _probe(prepared: Prepared, spec: RunSpec, on_part: Callable[[], None]) -> Value:
    default = prepared.recipe["learning_rate"]
    batches = choose_steps(prepared)
    if len(batches) < _LEAST_STEPS:
        return replace(
            default,
            reason=f"{default.reason}; not probed: 5 % of the tokens are only {len(batches)} steps",
            reason_zh=f"{default.reason_zh}；未试探：5 % 的词元只够 {len(batches)} 步",
        )
    losses = _try_rates(prepared, spec, batches, on_part)
    best = min(_FACTORS, key=lambda factor: losses[factor])
    if losses[best] > losses[1.0] * (1 - _LEAST_GAIN):
        best = 1.0
    bound = BOUNDS["learning_rate"]
    rate = min(bound.high, max(bound.low, read_number(prepared.recipe, "learning_rate") * best))
    tried = ", ".join(f"×{factor:g} {losses[factor]:.4f}" for factor in sorted(_FACTORS))
    reason = f"probe of {len(batches)} steps each, held-out loss {tried}; {default.reason}"
    reason_zh = f"各试探 {len(batches)} 步，留出损失 {tried}；{default.reason_zh}"
    return Value(float(f"{rate:.3g}"), reason, f"{Source.DATA}; {default.source}", reason_zh)


def _try_rates(
    prepared: Prepared, spec: RunSpec, batches: Sequence[Batch], on_part: Callable[[], None]
) -> dict[float, float]:
    mean_tokens = prepared.epoch_tokens / len(prepared.train)
    on_part()
    model: Any = add_adapter(
        load_model(prepared.folder, spec.device, mean_tokens=mean_tokens), prepared.recipe, spec.seed
    )
    speed_up_products(model, spec.device)
    loss = AnswerLoss(model, build_fused_decoder(model, device=spec.device, mean_tokens=mean_tokens))
    pad_id = prepared.tokenizer.eos_token_id
    proof = build_batch([prepared.train[batches[0][0]]], pad_id=pad_id, device=spec.device)
    loss.prove_head(proof)
    loss.prove_fused(proof)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in weights]
    found = {}
    for factor in _FACTORS:
        with torch.no_grad():
            for weight, value in zip(weights, start, strict=True):
                weight.copy_(value)
        rate = read_number(prepared.recipe, "learning_rate") * factor
        _train_briefly(loss, weights, prepared, batches, rate=rate, on_part=on_part)
        model.eval()
        rows = prepared.valid[:_HELD_OUT_ROWS]
        budget = 4 * read_count(prepared.recipe, "batch_tokens")
        found[factor] = measure_losses(
            loss, rows, batch_tokens=budget, pad_id=pad_id, device=spec.device, on_part=on_part
        ).mean
    return found


def _train_briefly(
    loss: AnswerLoss,
    weights: list[Any],
    prepared: Prepared,
    batches: Sequence[Batch],
    *,
    rate: float,
    on_part: Callable[[], None],
) -> None:
    device = str(weights[0].device)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
    precision = use_training_precision(weights[0].device.type)
    loss.model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / _WARMUP_STEPS)
        rows = [prepared.train[row] for row in batch]
        with precision():
            value = loss.measure(build_batch(rows, pad_id=prepared.tokenizer.eos_token_id, device=device)).mean()
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, read_number(prepared.recipe, "clip_norm"))
        optimizer.step()
        on_part()
