"""A trainer without a model for fast tests: `twin_trainer.py SPEC OUT` speaks the trainer's files exactly.

The recipe steers it: `epochs` steps of 0.05 s (or of `warmup_ratio` s), `patience` 7 makes it die without a result on
its first attempt, `validations` 13 makes it fail by the platform's fault, `min_delta` above 0.05 makes it no better
than its base, `clip_norm` 7 runs out of memory unless steps come in parts, `clip_norm` 8 even then.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from finetune.progress import ProgressLog, write_result
from finetune.spec import Event, ExitCode, Fault, Kind, Progress, Result, RunSpec, State
from finetune.stop import StopRequests
from tests.registry.builders import write_adapter

TOKENS_PER_STEP = 100
STEP_MS = 200


def main(spec_path: Path, out: Path) -> int:
    """Run one specification."""
    spec = RunSpec.from_json(spec_path.read_text())
    steps = int(spec.recipe["epochs"].value) if "epochs" in spec.recipe else 3
    if spec.kind is Kind.PLAN:
        return _plan(spec, out, steps)
    return _train(spec, out, steps)


def _plan(spec: RunSpec, out: Path, steps: int) -> int:
    if "rank" in spec.recipe and spec.recipe["rank"].value == 9:
        _finish(spec, out, State.FAILED, reason="hyperparameter_out_of_range", fault=Fault.USER)
        return ExitCode.DATA
    recipe = {
        "rank": {"value": 8, "reason": "default"},
        "epochs": {"value": steps, "reason": "asked"},
        "batch_tokens": {"value": 256, "reason": "default"},
    }
    plan = {
        "plan_digest": hashlib.sha256(spec.to_json().encode()).hexdigest(),
        "tokens": TOKENS_PER_STEP * steps,
        "tokens_per_epoch": TOKENS_PER_STEP,
        "rows": {"train": 10, "valid": 2},
        "steps": steps,
        "recipe": recipe,
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
    if values.get("clip_norm") == 8 or (values.get("clip_norm") == 7 and spec.limits.batch_tokens is None):
        _finish(spec, out, State.FAILED, reason="out_of_memory", fault=Fault.PLATFORM)
        return ExitCode.OUT_OF_MEMORY
    for step in range(log.step + 1, steps + 1):
        time.sleep(float(values.get("warmup_ratio", 0.05)))
        asked = stop.pending()
        if asked is not None:
            _finish(spec, out, asked.state, reason=asked.code, fault=asked.fault, step=step - 1)
            return asked.exit_code
        _count(log, step, is_committed=False)
        log.write(Event.STEP, {"loss": 1.0 / step})
        _count(log, step, is_committed=True)
        log.write(Event.CHECKPOINT)
        if values.get("patience") == 7 and spec.attempt == 1 and step == 2:
            os._exit(137)
        if values.get("validations") == 13:
            _finish(spec, out, State.FAILED, reason="base_changed", fault=Fault.PLATFORM, step=step)
            return ExitCode.FAILED
    log.write(Event.STAGE, {"stage": "evaluating_adapter"})
    gain = 0.0 if float(values.get("min_delta", 0)) > 0.05 else 1.0
    _pack(out, spec)
    digest = hashlib.sha256((out / "artifact" / "SHA256SUMS").read_bytes()).hexdigest()
    metrics = {"base": {"loss": 2.0, "exact_match": 0.1}, "adapter": {"loss": 2.0 - gain, "exact_match": 0.9}}
    _finish(spec, out, State.SUCCEEDED, tokens=TOKENS_PER_STEP * steps, step=steps, digest=digest, metrics=metrics)
    return ExitCode.DONE


def _find_step(spec: RunSpec) -> int:
    """A line torn by a kill counts as not written, as it does for the hub."""
    path = Path(spec.resume_from or "none") / "progress.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return max((Progress.from_json(line).committed_step for line in lines), default=0)


def _count(log: ProgressLog, step: int, *, is_committed: bool) -> None:
    log.step, log.tokens, log.device_ms = step, TOKENS_PER_STEP * step, STEP_MS * step
    if is_committed:
        log.committed_step = step


def _pack(out: Path, spec: RunSpec) -> None:
    folder = write_adapter(out / "artifact", config={"run": spec.run_id})
    names = sorted(path.name for path in folder.iterdir())
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)
    manifest = {
        "digests": {"train_digest": "1" * 64, "valid_digest": "2" * 64},
        "code_digest": "3" * 64,
        "recipe": {"rank": {"value": 4, "reason": "default"}},
    }
    (out / "manifest.json").write_text(json.dumps(manifest))


def _finish(
    spec: RunSpec,
    out: Path,
    state: State,
    *,
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
    write_result(out, result)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
