"""A trainer without a model for fast tests: `twin_trainer.py SPEC OUT` speaks the trainer's files exactly.

The recipe steers it: `epochs` steps of 0.05 s (40 of 0.2 s; or of `warmup_ratio` s), `validations` up to 12 looks at
held-out rows with a checkpoint each, 13 makes it fail by the platform's fault. `patience` 7 makes it die without a
result on its first attempt, 8 leave the result of another run, 9 write a file without end after it could not fork, 10
stand still behind its second step on its first attempt, 11 on each, 12 talk on and get no further on its first, 13 take
longer for a commit than its whole life may last.
`min_delta` above 0.05 makes it no better than its base, `clip_norm` 7 runs out of memory unless steps come in parts, 8
even then, 9 finds a loss that is no number from step 2 on unless the learning rate is lowered, 10 even then; 9.5 says
after step 2 that its data are not what was promised.
"""

import hashlib
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

from finetune.codec import encode
from finetune.confine import confine
from finetune.progress import ProgressLog, write_result
from finetune.recipe import Facts, resolve_recipe
from finetune.recipe_fixed import list_fixed
from finetune.spec import Event, ExitCode, Fault, Kind, Progress, Result, RunSpec, Source, State, Value
from finetune.stop import StopRequests
from tests.registry.builders import write_adapter

BASE_LOSS = 2.0
TOKENS_PER_STEP = 100
STEP_MS = 200
FACTS = Facts(
    rows=10, width=256, family="twin", mean_tokens=10, longest_tokens=20, longest_answer=8, model_limit=131_072
)
SLOW_STEPS = 40
"""A run of so many steps is long enough for a slow machine to stop it in its middle."""


def main(spec_path: Path, out: Path) -> int:
    """Run one specification."""
    spec = RunSpec.from_json(spec_path.read_text())
    steps = int(spec.recipe["epochs"].value) if "epochs" in spec.recipe else 3
    if spec.kind is Kind.PLAN:
        return _plan(spec, out, steps)
    return _train(spec, out, steps)


def _plan(spec: RunSpec, out: Path, steps: int) -> int:
    recipe = {
        "rank": Value(8, "default", Source.DEFAULT),
        "epochs": Value(steps, "asked"),
        "batch_tokens": Value(256, "default", Source.DATA),
    }
    plan = {
        "plan_digest": hashlib.sha256(spec.to_json().encode()).hexdigest(),
        "tokens": TOKENS_PER_STEP * steps,
        "tokens_per_epoch": TOKENS_PER_STEP,
        "rows": {"train": 10, "valid": 2},
        "steps": steps,
        "recipe": encode(recipe),
        "fixed": encode(list_fixed(spec.device, has_fast_bf16=False)),
        "device": spec.device,
        "estimate": {
            "basis": "measured",
            "device_ms": STEP_MS * steps + 500,
            "train_ms": STEP_MS * steps,
            "tokens_per_s": 500.0,
        },
    }
    (out / "plan.json").write_text(json.dumps(plan))
    _finish(spec, out, State.SUCCEEDED, tokens=TOKENS_PER_STEP * steps)
    return ExitCode.DONE


def _train(spec: RunSpec, out: Path, steps: int) -> int:
    stop = StopRequests(out)
    stop.listen()
    values = {name: value.value for name, value in spec.recipe.items()}
    log = ProgressLog(out, spec)
    _count(log, _find_step(spec), is_committed=True)
    log.write(Event.STARTED)
    if log.step > 0:
        log.write(Event.RESUMED)
        log.write(Event.CHECKPOINT)
    failed = _fail_at_once(spec, out, values, log)
    if failed is not None:
        return failed
    looks = choose_looks(steps, int(values.get("validations", 0)))
    if looks and log.step == 0:
        log.write(Event.VALIDATION, _look(0))
    for step in range(log.step + 1, steps + 1):
        time.sleep(float(values.get("warmup_ratio", 0.2 if steps == SLOW_STEPS else 0.05)))
        asked = stop.pending()
        if asked is not None:
            _finish(spec, out, asked.state, log=log, reason=asked.code, fault=asked.fault, step=step - 1)
            return asked.exit_code
        _count(log, step, is_committed=False)
        if step in looks:
            _pack(out, f"evaluated/step-{step:08d}", {"step": step})
            log.write(Event.VALIDATION, _look(step))
        log.write(Event.STEP, {"loss": 1.0 / step, "tokens_per_s": 500.0, "eta_s": 0.05 * (steps - step)})
        _count(log, step, is_committed=True)
        log.write(Event.CHECKPOINT)
        failure = _find_failure(spec, values, step)
        if failure is not None:
            reason, fault, exit_code = failure
            _finish(spec, out, State.FAILED, log=log, reason=reason, fault=fault, step=step)
            return exit_code
        if step >= 2:
            _misbehave(spec, values, log)
    _deliver(spec, out, steps, gain=0.0 if float(values.get("min_delta", 0)) > 0.05 else 1.0, log=log)
    return ExitCode.DONE


def _misbehave(spec: RunSpec, values: dict[str, int | float | str], log: ProgressLog) -> None:
    mode = values.get("patience")
    if mode == 7 and spec.attempt == 1 and log.step == 2:
        os._exit(137)
    if mode == 13 and log.step == 2:
        _commit_slowly(spec, log)
    while mode == 11 or (mode in (10, 12) and spec.attempt == 1):
        time.sleep(0.05)
        if mode == 12:
            log.write(Event.STAGE, {"stage": "training"})


def _commit_slowly(spec: RunSpec, log: ProgressLog) -> None:
    until_s = time.monotonic() + (spec.limits.device_ms or 0) / 1000 + 1.5
    while time.monotonic() < until_s:
        with log.time_commit():
            time.sleep(0.05)
        log.write(Event.CHECKPOINT)


def _find_failure(spec: RunSpec, values: dict[str, int | float | str], step: int) -> tuple[str, Fault, ExitCode] | None:
    if step >= 2 and _diverges(spec, values):
        return "nan_loss", Fault.PLATFORM, ExitCode.FAILED
    if step >= 2 and values.get("clip_norm") == 9.5:
        return "data_changed", Fault.USER, ExitCode.DATA
    return ("base_changed", Fault.PLATFORM, ExitCode.FAILED) if values.get("validations") == 13 else None


def _diverges(spec: RunSpec, values: dict[str, int | float | str]) -> bool:
    return values.get("clip_norm") == 10 or (values.get("clip_norm") == 9 and spec.rate_factor == 1)


def _fail_at_once(spec: RunSpec, out: Path, values: dict[str, int | float | str], log: ProgressLog) -> int | None:
    if values.get("patience") == 8:
        _finish(replace(spec, run_id="run_of_another"), out, State.SUCCEEDED, digest="1" * 64)
        return ExitCode.DONE
    if values.get("patience") == 9:
        _fill_disk(spec, out)
    if values.get("clip_norm") == 8 or (values.get("clip_norm") == 7 and spec.limits.batch_tokens is None):
        _finish(spec, out, State.FAILED, log=log, reason="out_of_memory", fault=Fault.PLATFORM)
        return ExitCode.OUT_OF_MEMORY
    return None


def _deliver(spec: RunSpec, out: Path, steps: int, *, gain: float, log: ProgressLog) -> None:
    log.write(Event.STAGE, {"stage": "evaluating_adapter"})
    _pack(out, "artifact", {"run": spec.run_id})
    _write_manifest(out, spec)
    digest = hashlib.sha256((out / "artifact" / "SHA256SUMS").read_bytes()).hexdigest()
    metrics = {
        "base": {"loss": BASE_LOSS, "exact_match": 0.1, "exact_match_low": 0.02, "exact_match_high": 0.4},
        "adapter": {"loss": BASE_LOSS - gain, "exact_match": 0.9, "exact_match_low": 0.6, "exact_match_high": 0.98},
    }
    tokens = TOKENS_PER_STEP * steps
    _finish(spec, out, State.SUCCEEDED, log=log, tokens=tokens, step=steps, digest=digest, metrics=metrics)


def _fill_disk(spec: RunSpec, out: Path) -> None:
    """Shut in as the real trainer is, it can neither start a process nor write beyond its bound: it dies trying."""
    confine(replace(spec, limits=replace(spec.limits, file_bytes=100_000)), out / "spec.json", out)
    try:
        os.fork()
    except BlockingIOError:
        with (out / "large").open("wb") as stream:
            while True:
                stream.write(b"x" * 10_000)


def _find_step(spec: RunSpec) -> int:
    """A line torn by a kill counts as not written, as it does for the hub."""
    path = Path(spec.resume_from or "none") / "progress.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return max((Progress.from_json(line).committed_step for line in lines), default=0)


def _count(log: ProgressLog, step: int, *, is_committed: bool) -> None:
    log.step, log.tokens, log.device_ms = step, TOKENS_PER_STEP * step, STEP_MS * step
    if is_committed:
        log.committed_step = step


def choose_looks(steps: int, validations: int) -> set[int]:
    """Return the steps after which held-out rows are looked at."""
    return (
        {max(1, round(steps * look / validations)) for look in range(1, validations + 1)} if validations < 13 else set()
    )


def _look(step: int) -> dict[str, float]:
    loss, accuracy = BASE_LOSS / (1 + step), 1 - 1 / (1 + step)
    return {"valid_loss": loss, "valid_token_accuracy": accuracy, "best_step": step}


def _pack(out: Path, name: str, config: dict[str, int | str]) -> None:
    folder = write_adapter(out / name, config=config)
    names = sorted(path.name for path in folder.iterdir())
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)


def _write_manifest(out: Path, spec: RunSpec) -> None:
    manifest = {
        "digests": {"train_digest": "1" * 64, "valid_digest": "2" * 64, **_digest_base(spec)},
        "code_digest": "3" * 64,
        "recipe": encode(resolve_recipe({**spec.recipe, "rank": Value(8)}, FACTS)),
        "fixed": encode(list_fixed(spec.device, has_fast_bf16=False)),
        "device": spec.device,
        "hardware": {"machine": "x86_64", "processor": "Twin", "accelerators": [], "cores": 2, "threads": "1"},
        "versions": {"python": platform.python_version(), "torch": "0.0-twin"},
    }
    (out / "manifest.json").write_text(json.dumps(manifest))


def _digest_base(spec: RunSpec) -> dict[str, str | None]:
    names = ("weights_digest", "tokenizer_digest", "template_digest")
    return {name: getattr(spec.base, name) for name in names}


def _finish(
    spec: RunSpec,
    out: Path,
    state: State,
    *,
    log: ProgressLog | None = None,
    reason: str = "done",
    fault: Fault = Fault.NONE,
    tokens: int | None = None,
    step: int = 0,
    digest: str | None = None,
    metrics: dict[str, dict[str, float]] | None = None,
) -> None:
    result = Result(
        run_id=spec.run_id,
        attempt=spec.attempt,
        fence=spec.fence,
        kind=spec.kind,
        state=state,
        reason_code=reason,
        fault=fault,
        message=f"twin: {reason}",
        artifact_digest=digest,
        step=step,
        tokens=TOKENS_PER_STEP * step if tokens is None else tokens,
        billable_device_ms=STEP_MS * step,
        elapsed_device_ms=STEP_MS * step + 50,
        metrics=metrics or {},
    )
    if log is not None:
        log.write(Event.FINISHED, {"state": str(state), "reason_code": reason})
    write_result(out, result)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
