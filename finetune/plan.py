"""kind=plan: the exact tokens and steps of a run, its recipe with reasons, and an estimate of its device time.

Leaves prices and vouchers to the hub.
"""

import time
from collections.abc import Callable

from finetune.codec import Json, encode
from finetune.files import format_json, write_atomic
from finetune.job import Job
from finetune.prepare import Prepared, prepare_run
from finetune.recipe import read_count
from finetune.recipe_fixed import list_fixed
from finetune.spec import Event, Fault, Result, RunSpec, State

_GENERATED_ROWS = 64


def plan_run(job: Job) -> Result:
    """Write OUT/plan.json. `tokens` of plan, result and bill are one number: non-pad tokens fed over all epochs."""
    from finetune.artifact import read_versions
    from finetune.lora_product import has_fast_bf16
    from finetune.rate_probe import settle_rate

    spec, log = job.spec, job.log
    log.write(Event.STAGE, {"stage": "preparing"})
    prepared = prepare_run(spec)
    job.stop.raise_pending()
    log.write(Event.STAGE, {"stage": "measuring"})
    prepared = settle_rate(prepared, spec)
    cost = _estimate_cost(spec, prepared)
    plan: dict[str, Json] = {
        "plan_digest": prepared.plan_digest,
        "tokens": prepared.tokens,
        "tokens_per_epoch": prepared.epoch_tokens,
        "steps": prepared.steps,
        "rows": {"train": len(prepared.train), "valid": len(prepared.valid)},
        "over_length": encode(prepared.over_length),
        "recipe": encode(prepared.recipe),
        "fixed": encode(list_fixed(spec.device, has_fast_bf16=has_fast_bf16(spec.device))),
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
    valid_tokens = sum(prepared.valid.lengths)
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
    """Speeds of the real base on this device: a few steps over the plan, one look, a few generated tokens."""
    from finetune.probe import SpeedProbe

    probe = SpeedProbe(prepared, spec)
    probe.run_steps()  # the first pass pays for warming up
    return {
        "train_tokens_per_s": _time_per_s(probe.run_steps),
        "valid_tokens_per_s": _time_per_s(probe.look),
        "generate_step_ms": 1000 / _time_per_s(probe.generate),
    }


def _time_per_s(work: Callable[[], int]) -> float:
    started_s = time.monotonic()
    count = work()
    return count / max(1e-6, time.monotonic() - started_s)
