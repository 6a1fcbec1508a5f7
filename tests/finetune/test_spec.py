"""The run specification and its strict codec."""

import json
import subprocess
import sys

import pytest

from finetune.spec import (
    Base,
    ColumnRole,
    Data,
    Event,
    Fault,
    Kind,
    Limits,
    Progress,
    Result,
    RunSpec,
    SourceFormat,
    SpecError,
    State,
    Value,
)

SPEC = RunSpec(
    kind=Kind.TRAIN,
    run_id="run_1",
    base=Base("/bases/a", weights_digest="0" * 64),
    data=Data(train="t", valid="v", mapping={"问题": ColumnRole.PROMPT}, digests={"train": "1" * 64}),
    recipe={"learning_rate": Value(1, "whole numbers are numbers"), "rank": Value(16)},
    limits=Limits(steps=3, deadline_at=1_795_000_000_000_000),
)


def test_messages_survive_the_round_trip() -> None:
    progress = Progress(attempt=1, fence=2, seq=3, at=4, type=Event.STEP, metrics={"loss": 0.5, "nested": [1, None]})
    result = Result(
        run_id="run_1", attempt=1, fence=0, kind=Kind.TRAIN, state=State.FAILED, reason_code="oom", fault=Fault.PLATFORM
    )
    assert RunSpec.from_json(SPEC.to_json()) == SPEC
    assert Progress.from_json(progress.to_json()) == progress
    assert Result.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    ("path", "value", "code", "field"),
    [
        (("extra",), 1, "unknown_field", "extra"),
        (("data", "colour"), 1, "unknown_field", "data.colour"),
        (("run_id",), 7, "wrong_type", "run_id"),
        (("attempt",), True, "wrong_type", "attempt"),
        (("kind",), "bake", "invalid_value", "kind"),
        (("data", "mapping"), {"a": "colour"}, "invalid_value", "data.mapping.a"),
        (("recipe",), {"rank": {"value": [1]}}, "wrong_type", "recipe.rank.value"),
        (("base",), None, "missing_field", "base"),
        (("spec_version",), 2, "unsupported_version", "spec_version"),
        (("checkpoint", "keep"), 0, "invalid_value", "checkpoint.keep"),
        (("limits", "tokens"), -5, "invalid_value", "limits.tokens"),
        (("device",), "tpu", "invalid_value", "device"),
    ],
)
def test_what_does_not_fit_is_named(path: tuple[str, ...], value: object, code: str, field: str) -> None:
    document = json.loads(SPEC.to_json())
    target = document
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(SpecError) as caught:
        RunSpec.from_json(json.dumps(document))
    assert (caught.value.code, caught.value.field) == (code, field)


def test_missing_fields_are_named() -> None:
    with pytest.raises(SpecError, match="run_id: missing"):
        RunSpec.from_json('{"kind": "check", "data": {}}')
    with pytest.raises(SpecError, match=r"data\.format: missing; a check run needs it"):
        RunSpec(kind=Kind.CHECK, run_id="r", data=Data(source="a"))
    assert RunSpec(kind=Kind.CHECK, run_id="r", data=Data(source="a", format=SourceFormat.CSV)).base is None


def test_spec_and_check_load_no_heavy_library() -> None:
    code = "import sys, finetune.spec, finetune.__main__, finetune.check; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "finetune.check" in loaded
    assert not {"torch", "transformers", "numpy", "openpyxl"} & set(loaded)
