"""kind=plan and kind=train on a real tiny base: exact tokens, exact resume, stops, a clean artifact."""

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from finetune.__main__ import main
from finetune.prepare import prepare_run
from finetune.rate_probe import choose_steps, settle_rate
from finetune.spec import Event, ExitCode, Fault, Kind, Limits, Progress, RunSpec, Value
from finetune.train import Trainer
from tests.finetune.conftest import Start, StartedTrainer, read_result

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the uninterrupted run that the first test leaves for the second."""
    return tmp_path_factory.mktemp("shared") / "whole"


def _read_progress(out: Path) -> list[Progress]:
    path = out / "progress.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [Progress.from_json(line) for line in lines]


def _wait_for_step(process: StartedTrainer, out: Path, step: int) -> None:
    deadline_s = time.monotonic() + 120
    while not any(line.committed_step >= step for line in _read_progress(out)):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_plan_and_train_agree_to_the_token(
    start: Start, start_cold: Start, train_spec: RunSpec, shared: Path, tmp_path: Path
) -> None:
    assert start_cold(replace(train_spec, kind=Kind.PLAN), tmp_path / "plan").wait() == ExitCode.DONE
    assert start(train_spec, shared).wait() == ExitCode.DONE
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    quoted, billed = read_result(tmp_path / "plan"), read_result(shared)
    assert (quoted.tokens, quoted.plan_digest) == (billed.tokens, billed.plan_digest)
    assert plan["tokens"] == plan["tokens_per_epoch"] * 3 == billed.tokens
    assert plan["estimate"]["device_ms"] > 0
    assert 0 < billed.billable_device_ms <= billed.elapsed_device_ms
    _assert_learned(shared)
    _assert_artifact(shared)


def _assert_learned(out: Path) -> None:
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    lines = _read_progress(out)
    assert metrics["n"] == 24
    assert metrics["adapter"]["loss"] < metrics["base"]["loss"]
    assert metrics["adapter"]["exact_match_low"] <= metrics["adapter"]["exact_match"]
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert {Event.STEP, Event.VALIDATION, Event.CHECKPOINT, Event.EVALUATED} <= {line.type for line in lines}
    assert lines[-1].type is Event.FINISHED
    assert "leaks" not in (out / "progress.jsonl").read_text()


def _assert_artifact(out: Path) -> None:
    folder = out / "artifact"
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].startswith("sha256:")
    assert (config["r"], config["modules_to_save"], config["use_dora"]) == (8, None, False)
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        names = list(tensors.keys())
    assert len(names) == 2 * 2 * 7
    assert all(".lora_A." in name or ".lora_B." in name for name in names)


def test_killed_run_resumes_to_the_same_weights(
    start: Start, train_spec: RunSpec, shared: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    process = start(train_spec, first)
    _wait_for_step(process, first, 5)
    process.signal("kill")
    assert process.wait() == -9
    assert not (first / "result.json").exists()
    newest = max((first / "checkpoints").glob("step-*"))
    (newest / "adapter.safetensors").write_bytes(b"torn")  # the commit before it must serve
    assert start(replace(train_spec, attempt=2, fence=1, resume_from=str(first)), second).wait() == ExitCode.DONE
    resumed = next(line for line in _read_progress(second) if line.type is Event.RESUMED)
    assert 0 < resumed.step < int(newest.name[-8:])
    whole, pieces = read_result(shared), read_result(second)
    assert (pieces.tokens, pieces.artifact_digest) == (whole.tokens, whole.artifact_digest)
    assert pieces.metrics["adapter"] == whole.metrics["adapter"]


def test_steps_in_parts_bill_the_same_tokens_and_learn_the_same(
    start: Start, train_spec: RunSpec, shared: Path, tmp_path: Path
) -> None:
    assert start(replace(train_spec, limits=Limits(batch_tokens=40)), tmp_path / "parts").wait() == ExitCode.DONE
    whole, parts = read_result(shared), read_result(tmp_path / "parts")
    assert (parts.tokens, parts.step, parts.plan_digest) == (whole.tokens, whole.step, whole.plan_digest)
    losses = [result.metrics["adapter"]["loss"] for result in (whole, parts)]  # type: ignore[index,call-overload]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "code", "reason", "fault"),
    [
        ({"weights_digest": "0" * 64}, ExitCode.FAILED, "base_changed", Fault.PLATFORM),
        ({"template_digest": "0" * 64}, ExitCode.FAILED, "base_changed", Fault.PLATFORM),
        ({"recipe": {"learning_rate": Value(1.0)}}, ExitCode.DATA, "hyperparameter_out_of_range", Fault.USER),
        ({"digests": {"train": "0" * 64}}, ExitCode.DATA, "data_changed", Fault.USER),
        ({"recipe": {"max_length": Value(16)}}, ExitCode.DATA, "no_trainable_tokens", Fault.USER),
    ],
)
def test_what_the_spec_does_not_promise_is_refused(
    train_spec: RunSpec, tmp_path: Path, changes: dict[str, Any], code: ExitCode, reason: str, fault: Fault
) -> None:
    assert train_spec.base is not None
    base = replace(train_spec.base, **{name: value for name, value in changes.items() if name.endswith("_digest")})
    data = replace(train_spec.data, digests=changes.get("digests", {}))
    spec = replace(train_spec, base=base, data=data, recipe=changes.get("recipe", {}))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == code
    result = read_result(tmp_path / "out")
    assert (result.reason_code, result.fault) == (reason, fault)


def test_the_learning_rate_probe_takes_a_twentieth_and_plan_and_train_agree(
    train_spec: RunSpec, tmp_path: Path
) -> None:
    recipe = {"epochs": Value(50), "validations": Value(1), "probe_learning_rate": Value(1), "batch_tokens": Value(160)}
    spec = replace(train_spec, recipe=recipe)
    prepared = prepare_run(spec)
    spent = 3 * sum(len(prepared.train[row].ids) for batch in choose_steps(prepared) for row in batch)
    assert 0 < spent <= 0.05 * prepared.tokens
    settled = settle_rate(prepared, spec)
    rate, default = settled.recipe["learning_rate"], float(prepared.recipe["learning_rate"].value)
    assert float(rate.value) in (default, default / 2, default * 2)
    assert "held-out loss" in rate.reason
    assert "留出损失" in rate.reason_zh
    assert settle_rate(prepared, spec).plan_digest == settled.plan_digest
    given = replace(spec, recipe={**recipe, "learning_rate": rate})
    assert settle_rate(prepare_run(given), given).plan_digest == settled.plan_digest
    short = replace(spec, recipe={**recipe, "epochs": Value(1)})
    assert "not probed" in settle_rate(prepare_run(short), short).recipe["learning_rate"].reason


def test_a_trainer_that_prepares_for_long_says_so_from_digest_to_load(
    train_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.progress.BEAT_S", 0.0)  # the real silence is ten seconds
    monkeypatch.setattr("finetune.token_rows._BATCH_ROWS", 40)
    recipe = {"epochs": Value(50), "validations": Value(1), "probe_learning_rate": Value(1), "batch_tokens": Value(160)}
    spec = replace(train_spec, recipe=recipe)
    prepared_beats: list[None] = []
    prepared = prepare_run(spec, lambda: prepared_beats.append(None))
    digests = len(list_tensors(Path(prepared.folder)))
    assert len(prepared_beats) >= digests + 5, "four batches of rows to train, one held out"
    probe_beats: list[None] = []
    settle_rate(prepared, spec, lambda: probe_beats.append(None))
    assert len(probe_beats) > 3 * len(choose_steps(prepared))
    short = replace(spec, limits=Limits(steps=1))
    (tmp_path / "spec.json").write_text(short.to_json(), encoding="utf-8")
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == ExitCode.DONE
    told = [line.metrics.get("stage") for line in _read_progress(tmp_path / "out")]
    before = told[: told.index("training")]
    assert before.count("preparing") >= 1 + len(prepared_beats) + 1


def list_tensors(folder: Path) -> list[str]:
    return [name for path in folder.glob("*.safetensors") for name in safe_open(path, "numpy").keys()]  # noqa: SIM118


def test_a_loss_that_is_no_number_leaves_a_commit_to_go_on_from_at_a_lower_rate(
    train_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run cannot be made to diverge within the recipe's bounds here, so the gradients of one step are spoiled."""
    own = Trainer._add_gradients

    def spoil(trainer: Trainer, rows: Any) -> float:
        value = own(trainer, rows)
        if trainer.position.step == 3 and trainer.job.spec.rate_factor == 1:
            next(iter(trainer._weights.values())).grad.fill_(float("inf"))
        return value

    monkeypatch.setattr(Trainer, "_add_gradients", spoil)
    second = replace(train_spec, attempt=2, rate_factor=0.5, resume_from=str(tmp_path / "1"))
    ends = []
    for spec in (train_spec, second):
        (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
        ends.append(main([str(tmp_path / "spec.json"), str(tmp_path / str(spec.attempt))]))
    first = read_result(tmp_path / "1")
    assert ends == [ExitCode.FAILED, ExitCode.DONE]
    assert (first.reason_code, first.fault, first.step) == ("nan_loss", Fault.PLATFORM, 3)
    lines = _read_progress(tmp_path / "2")
    assert next(line.step for line in lines if line.type is Event.RESUMED) == 3
    rates = [float(str(line.metrics["learning_rate"])) for line in lines if line.type is Event.STEP]
    assert max(rates) <= 0.5 * 4e-3
    assert json.loads((tmp_path / "2" / "manifest.json").read_text())["rate_factor"] == 0.5
