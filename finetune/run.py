"""One run from its specification to its result, by kind.

Leaves signals, exit codes and unexpected errors to `finetune.__main__`. Heavy libraries load only where needed.
"""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.codec import Json, encode
from finetune.files import write_atomic
from finetune.job import Job
from finetune.recipe import read_count
from finetune.recipe_fixed import list_fixed
from finetune.spec import Event, Fault, Kind, Result, State

if TYPE_CHECKING:
    from finetune.evaluate import Scores
    from finetune.prepare import Prepared
    from finetune.tokens import TokenRow
    from finetune.train import Trainer


_UNUSED = ("sklearn", "scipy")
"""MLflow brings them, and transformers imports them where they are, for metrics and losses that no run has."""


def leave_out_unused() -> None:
    """Let transformers find no library that it would import for nothing: a quarter of a trainer's start, 136 MiB."""
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def execute(job: Job) -> Result:
    """Do what `spec.kind` says inside `job.out`; raises RunError for every expected way to fail."""
    kind = job.spec.kind
    job.log.write(Event.STARTED, {"kind": str(kind), "enforced": encode(job.enforced)})
    if kind is Kind.CHECK:
        from finetune.check import check_source

        return check_source(job)
    leave_out_unused()
    _quiet_transformers()
    if kind is Kind.PLAN:
        from finetune.plan import plan_run

        return plan_run(job)
    return _train(job)


def _quiet_transformers() -> None:
    """Its bars and hints would fill the log of every run; errors still show."""
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()


def _train(job: Job) -> Result:
    from finetune.artifact import read_versions, write_artifact, write_manifest
    from finetune.prepare import prepare_run
    from finetune.rate_probe import settle_rate
    from finetune.train import Trainer

    log = job.log
    log.write(Event.STAGE, {"stage": "preparing"})
    beat = partial(log.beat, {"stage": "preparing"})  # slow disks are told from a trainer that is stuck
    prepared = settle_rate(prepare_run(job.spec, beat), job.spec, beat)
    job.stop.raise_pending()
    trainer = Trainer(job, prepared)
    log.write(Event.STAGE, {"stage": "training", "steps": prepared.steps, "planned_tokens": prepared.tokens})
    trainer.train()
    metrics = _score_both(trainer)
    log.write(Event.STAGE, {"stage": "packing"})
    artifact_digest = write_artifact(job.out, trainer.model, prepared.digests["weights_digest"])
    manifest_digest = write_manifest(
        job.out, _describe(job, prepared, metrics=metrics, artifact_digest=artifact_digest)
    )
    position = trainer.position
    return job.close(
        State.EARLY_STOPPED if position.stopped_early else State.SUCCEEDED,
        reason_code="no_more_gain" if position.stopped_early else "done",
        fault=Fault.NONE,
        plan_digest=prepared.plan_digest,
        artifact_digest=artifact_digest,
        step=position.step,
        tokens=position.tokens,
        billable_device_ms=position.device_ms,
        metrics=metrics,
        digests={"manifest.json": manifest_digest},
        versions=read_versions(),
    )


def _score_both(trainer: "Trainer") -> dict[str, Json]:
    """Held-out scores of adapter and base on the same rows; the time counts as device time of the customer."""
    started_s = time.monotonic()
    trainer.model.eval()
    prepared = trainer.prepared
    rows = prepared.valid[: read_count(prepared.recipe, "evaluate_rows")]
    adapter = _score(trainer, rows, "adapter")
    with trainer.model.disable_adapter():
        base = _score(trainer, rows, "base")
    trainer.charge(round((time.monotonic() - started_s) * 1000))
    _write_answers(trainer.job.out, rows, base=base, adapter=adapter)
    _write_probe(trainer.job.out, prepared.tokenizer)
    position = trainer.position
    metrics: dict[str, Json] = {
        "base": base.summarise(),
        "adapter": adapter.summarise(),
        "n": len(rows),
        "interval": "wilson_95",
        "train": {
            "steps": position.step,
            "planned_steps": prepared.steps,
            "planned_tokens": prepared.tokens,
            "best_step": position.best_step,
            "best_valid_loss": position.best_loss,
            "rows": len(prepared.train),
        },
    }
    trainer.job.log.write(Event.EVALUATED, metrics)
    return metrics


def _score(trainer: "Trainer", rows: "Sequence[TokenRow]", name: str) -> "Scores":
    from finetune.evaluate import score_model

    job, prepared = trainer.job, trainer.prepared
    place: dict[str, Json] = {"stage": f"evaluating_{name}", "done": 0, "of": len(rows)}

    def report(done: int) -> None:
        place["done"] = done
        job.log.write(Event.STAGE, place)
        job.stop.raise_pending()

    report(0)
    return score_model(
        trainer.loss,
        prepared.tokenizer,
        rows,
        batch_tokens=4 * read_count(prepared.recipe, "batch_tokens"),
        max_new_tokens=read_count(prepared.recipe, "max_new_tokens"),
        device=job.spec.device,
        on_batch=report,
        on_part=lambda: job.log.beat(place),
    )


def _write_answers(out: Path, rows: "Sequence[TokenRow]", *, base: "Scores", adapter: "Scores") -> None:
    """evaluation.jsonl: per held-out row (its line in the validation file) what each model answered."""
    lines = []
    for index, row in enumerate(rows):
        line: dict[str, Json] = {"row": row.row, "expected": row.answer}
        for name, scores in (("base", base), ("adapter", adapter)):
            line[name] = scores.answers[index].text
            line[f"{name}_hit"] = scores.hits[index]
            line[f"{name}_logprob"] = round(scores.losses.row_logprobs[index], 6)
        line["ids"], line["learn"] = encode(row.ids), encode(row.learn)  # an engine can be asked the very same
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(out / "evaluation.jsonl", "".join(lines))


def _write_probe(out: Path, tokenizer: Any) -> None:
    """probe.jsonl: the general questions as tokens of this base, for the engine that decides on publishing."""
    from finetune.general_probe import list_items
    from finetune.tokens import tokenize_rows

    chats = [
        (number, [{"role": "user", "content": item.question}, {"role": "assistant", "content": item.answer}])
        for number, item in enumerate(list_items(), start=1)
    ]
    lines = [
        json.dumps({"ids": row.ids, "learn": [list(span) for span in row.learn], "expected": row.answer}) + "\n"
        for row in tokenize_rows(tokenizer, chats)
    ]
    write_atomic(out / "probe.jsonl", "".join(lines))


def _describe(job: Job, prepared: "Prepared", *, metrics: Json, artifact_digest: str) -> dict[str, Json]:
    from finetune.lora_product import has_fast_bf16

    spec = job.spec
    return {
        "run_id": spec.run_id,
        "attempt": spec.attempt,
        "plan_digest": prepared.plan_digest,
        "artifact_digest": artifact_digest,
        "digests": encode(prepared.digests),
        "recipe": encode(prepared.recipe),
        "fixed": encode(list_fixed(spec.device, has_fast_bf16=has_fast_bf16(spec.device))),
        "seed": spec.seed,
        "rate_factor": spec.rate_factor,
        "device": spec.device,
        "tokens_planned": prepared.tokens,
        "over_length": encode(prepared.over_length),
        "metrics": metrics,
    }
