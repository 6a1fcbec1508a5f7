"""kind=plan: the exact tokens and steps of a run, its recipe with reasons, and an estimate of its device time.

Leaves prices and vouchers to the hub.
"""

import time
from typing import Any

from finetune.codec import Json, encode
from finetune.files import format_json, write_atomic
from finetune.job import Job
from finetune.prepare import Prepared, prepare_run
from finetune.recipe import read_count
from finetune.spec import Event, Fault, Result, RunSpec, State

_SAMPLE_BATCHES = 6
_SAMPLE_NEW_TOKENS = 8
_GENERATED_ROWS = 64


def plan_run(job: Job) -> Result:
    """Write OUT/plan.json. `tokens` of plan, result and bill are one number: non-pad tokens fed over all epochs."""
    from finetune.artifact import read_versions

    spec, log = job.spec, job.log
    log.write(Event.STAGE, {"stage": "preparing"})
    prepared = prepare_run(spec)
    job.stop.raise_pending()
    log.write(Event.STAGE, {"stage": "measuring"})
    cost = _estimate_cost(spec, prepared)
    plan: dict[str, Json] = {
        "plan_digest": prepared.plan_digest,
        "tokens": prepared.tokens,
        "tokens_per_epoch": prepared.epoch_tokens,
        "steps": prepared.steps,
        "rows": {"train": len(prepared.train), "valid": len(prepared.valid)},
        "over_length": encode(prepared.over_length),
        "recipe": encode(prepared.recipe),
        "digests": encode(prepared.digests),
        "device": spec.device,
        "estimate": cost,
    }
    plan_file_digest = write_atomic(job.out / "plan.json", format_json(plan))
    return job.close(
        State.SUCCEEDED,
        reason_code="done",
        fault=Fault.NONE,
        plan_digest=prepared.plan_digest,
        step=prepared.steps,
        tokens=prepared.tokens,
        metrics={"estimate": cost, "steps": prepared.steps, "tokens_per_epoch": prepared.epoch_tokens},
        digests={"plan.json": plan_file_digest},
        versions=read_versions(),
    )


def _estimate_cost(spec: RunSpec, prepared: Prepared) -> dict[str, Json]:
    """Device time of training, looks at the held-out rows and scoring, in ms."""
    if spec.limits.tokens_per_s is not None:
        tokens_per_s = spec.limits.tokens_per_s
        train_ms = round(1000 * prepared.tokens / tokens_per_s)
        # looks and scoring cost about a fifth of training on the measured bases
        return {"basis": "given", "tokens_per_s": tokens_per_s, "device_ms": round(train_ms * 1.2)}
    measured = _measure(spec, prepared)
    recipe = prepared.recipe
    train_ms = round(1000 * prepared.tokens / measured["train_tokens_per_s"])
    valid_tokens = sum(len(row.ids) for row in prepared.valid)
    looks_ms = round(1000 * (read_count(recipe, "validations") + 1) * valid_tokens / measured["valid_tokens_per_s"])
    rows = min(len(prepared.valid), read_count(recipe, "evaluate_rows"))
    passes = -(-rows // _GENERATED_ROWS) * read_count(recipe, "max_new_tokens")
    scoring_ms = round(
        2 * (passes * measured["generate_step_ms"] + 1000 * valid_tokens / measured["valid_tokens_per_s"])
    )
    return {
        "basis": "measured",
        "device_ms": train_ms + looks_ms + scoring_ms,
        "train_ms": train_ms,
        "looks_ms": looks_ms,
        "scoring_ms": scoring_ms,
        "tokens_per_s": round(measured["train_tokens_per_s"], 1),
    }


def _measure(spec: RunSpec, prepared: Prepared) -> dict[str, float]:
    """A short run on the real base: a few steps over the plan, one look, a few generated tokens."""
    from finetune.base import add_adapter, load_model, use_precision
    from finetune.evaluate import measure_losses
    from finetune.generate import generate_answers
    from finetune.loss import AnswerLoss, build_batch

    tokenizer, device = prepared.tokenizer, spec.device
    model = add_adapter(load_model(prepared.folder, device), prepared.recipe, spec.seed)
    loss = AnswerLoss(model)
    stride = max(1, prepared.steps // _SAMPLE_BATCHES)
    sample = list(prepared.batches[::stride])[:_SAMPLE_BATCHES]
    loss.prove_head(build_batch([prepared.train[sample[0][0]]], pad_id=tokenizer.eos_token_id, device=device))

    def run_steps() -> int:
        tokens = 0
        for batch in sample:
            rows = [prepared.train[row] for row in batch]
            with use_precision(device)():
                value: Any = loss.measure(build_batch(rows, pad_id=tokenizer.eos_token_id, device=device)).mean()
            value.backward()
            tokens += sum(len(row.ids) for row in rows)
        return tokens

    def look() -> int:
        rows = prepared.valid[:_GENERATED_ROWS]
        budget = 4 * read_count(prepared.recipe, "batch_tokens")
        measure_losses(loss, rows, batch_tokens=budget, pad_id=tokenizer.eos_token_id, device=device)
        return sum(len(row.ids) for row in rows)

    def generate() -> int:
        prompts = [row.prompt for row in prepared.valid[:_GENERATED_ROWS]]
        with use_precision(device)():
            generate_answers(
                model, tokenizer, prompts, max_new_tokens=_SAMPLE_NEW_TOKENS, device=device, on_batch=lambda _: None
            )
        return _SAMPLE_NEW_TOKENS

    run_steps()
    model.train()
    train_tokens_per_s = _time_per_s(run_steps)
    model.eval()
    return {
        "train_tokens_per_s": train_tokens_per_s,
        "valid_tokens_per_s": _time_per_s(look),
        "generate_step_ms": 1000 / _time_per_s(generate),
    }


def _time_per_s(work: Any) -> float:
    started_s = time.monotonic()
    count = work()
    return float(count / max(1e-6, time.monotonic() - started_s))
