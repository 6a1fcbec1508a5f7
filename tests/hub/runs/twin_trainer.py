"""A trainer without a model for fast tests: `twin_trainer.py SPEC OUT` speaks the trainer's files exactly.

The recipe steers it: `epochs` steps of 0.05 s, `patience` 7 makes it die without a result on its first attempt,
`validations` 13 makes it fail by the platform's fault, `min_delta` above 0.05 makes it no better than its base,
`clip_norm` 7 runs out of memory unless steps come in parts, `clip_norm` 8 even then.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from finetune.spec import Event, ExitCode, Fault, Kind, Progress, Result, RunSpec, State
from hub.clock import read_clock, to_us
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
    values = {name: value.value for name, value in spec.recipe.items()}
    first = _find_step(spec)
    _write(spec, out, 1, Event.STARTED)
    if values.get("clip_norm") == 8 or (values.get("clip_norm") == 7 and spec.limits.batch_tokens is None):
        _finish(spec, out, State.FAILED, reason="out_of_memory", fault=Fault.PLATFORM)
        return ExitCode.OUT_OF_MEMORY
    for step in range(first + 1, steps + 1):
        time.sleep(0.05)
        if (out / "cancel").exists():
            _finish(spec, out, State.CANCELLED, reason="cancelled", fault=Fault.USER, step=step - 1)
            return ExitCode.CANCELLED
        if (out / "pause").exists():
            _finish(spec, out, State.PREEMPTED, reason="paused", step=step - 1)
            return ExitCode.PREEMPTED
        _write(spec, out, 2 * step, Event.STEP, step=step, loss=1.0 / step)
        _write(spec, out, 2 * step + 1, Event.CHECKPOINT, step=step)
        if values.get("patience") == 7 and spec.attempt == 1 and step == 2:
            os._exit(137)
        if values.get("validations") == 13:
            _finish(spec, out, State.FAILED, reason="base_changed", fault=Fault.PLATFORM, step=step)
            return ExitCode.FAILED
    _write(spec, out, 2 * steps + 2, Event.STAGE, step=steps, stage="evaluating_adapter")
    gain = 0.0 if float(values.get("min_delta", 0)) > 0.05 else 1.0
    _pack(out, spec)
    digest = hashlib.sha256((out / "artifact" / "SHA256SUMS").read_bytes()).hexdigest()
    metrics = {"base": {"loss": 2.0, "exact_match": 0.1}, "adapter": {"loss": 2.0 - gain, "exact_match": 0.9}}
    _finish(spec, out, State.SUCCEEDED, tokens=TOKENS_PER_STEP * steps, step=steps, digest=digest, metrics=metrics)
    return ExitCode.DONE


def _find_step(spec: RunSpec) -> int:
    if spec.resume_from is None:
        return 0
    lines = (Path(spec.resume_from) / "progress.jsonl").read_text().splitlines()
    return max(Progress.from_json(line).committed_step for line in lines)


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


def _write(spec: RunSpec, out: Path, seq: int, kind: Event, *, step: int = 0, **metrics: float | str) -> None:
    line = Progress(
        attempt=spec.attempt,
        fence=spec.fence,
        seq=seq,
        at=to_us(read_clock()),
        type=kind,
        step=step,
        tokens=TOKENS_PER_STEP * step,
        committed_step=step if kind is Event.CHECKPOINT else max(0, step - 1),
        device_ms=STEP_MS * step,
        metrics=metrics,
    )
    with (out / "progress.jsonl").open("a") as stream:
        stream.write(line.to_json() + "\n")


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
    (out / "result.json").write_text(result.to_json())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
