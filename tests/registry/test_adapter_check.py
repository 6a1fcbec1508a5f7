"""The adapter gate: ordinary adapters pass, hostile ones are refused by the right rule, all findings at once."""

import os
from pathlib import Path

import numpy as np
import pytest

from registry.adapter_check import AdapterLimits, check_adapter
from registry.report import Severity
from tests.registry.builders import adapter_tensors, write_adapter, write_bfloat16

Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def test_ordinary_adapter_passes(adapter: Path, base: Path) -> None:
    (adapter / "README.md").write_text("# 轴承故障诊断")
    report = check_adapter(adapter, base)
    assert report.refusals == []
    assert report.warnings == []
    assert {"files.names", "adapter_config.values", "weights.header", "tensors.shapes", "tensors.finite"} <= {
        check.name for check in report.checks
    }


@pytest.mark.parametrize("word", ["F16", "BF16"])
@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_half_words_pass_and_their_infinities_do_not(tmp_path: Path, base: Path, word: str, value: float) -> None:
    tensors = adapter_tensors()
    tensors[Q_A][0, 0] = value
    folder = write_adapter(tmp_path / "half", tensors={name: tensor.astype("f2") for name, tensor in tensors.items()})
    if word == "BF16":
        write_bfloat16(folder / "adapter_model.safetensors", tensors)
    refusals = [(check.name, check.subject) for check in check_adapter(folder, base).refusals]
    assert refusals == ([] if value == 1.0 else [("tensors.finite", Q_A)])


def test_all_findings_come_in_one_report(tmp_path: Path, base: Path) -> None:
    tensors = adapter_tensors()
    tensors[Q_A][0, 0] = np.nan
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = np.ones((4, 8), np.float32)
    folder = write_adapter(tmp_path / "bad", tensors=tensors, config={"use_dora": True, "surprise": 1, "r": 5})
    (folder / "train.py").write_text("import os")
    found = {check.name for check in check_adapter(folder, base).refusals}
    assert found == {
        "files.names",
        "adapter_config.keys",
        "adapter_config.values",
        "tensors.names",
        "tensors.shapes",
        "tensors.finite",
    }


def test_every_refusal_says_what_to_do_in_both_languages(tmp_path: Path, base: Path) -> None:
    folder = write_adapter(tmp_path / "bad", config={"r": 65, "target_modules": "all-linear", "surprise": 1})
    (folder / "x.bin").write_bytes(b"x")
    refusals = check_adapter(folder, base).refusals
    assert len(refusals) == 4
    assert all(check.fix_zh and check.fix_en and check.message_zh and check.subject for check in refusals)


@pytest.mark.parametrize(
    "name", ["a.bin", "a.pt", "model.pkl", "x.py", "a.zip", "tokenizer.json", "..x", ".env", "CON"]
)
def test_other_file_names_are_refused(adapter: Path, base: Path, name: str) -> None:
    (adapter / name).write_bytes(b"x")
    assert [check.subject for check in check_adapter(adapter, base).refusals] == [name]


def test_name_of_broken_bytes_stays_printable(adapter: Path, base: Path) -> None:
    with open(os.fsencode(adapter) + b"/a\xff\x1b[2J.py", "wb") as stream:
        stream.write(b"x")
    (check,) = check_adapter(adapter, base).refusals
    assert check.subject.isprintable()
    assert check.subject.encode() == rb"a\udcff\x1b[2J.py"


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "folder"])
def test_links_and_pipes_are_refused(adapter: Path, base: Path, tmp_path: Path, kind: str) -> None:
    target = adapter / "README.md"
    outside = tmp_path / "secret"
    outside.write_text("secret")
    if kind == "symlink":
        target.symlink_to(outside)
    elif kind == "hardlink":
        target.hardlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    assert [(c.name, c.subject) for c in check_adapter(adapter, base).refusals] == [("files.plain", "README.md")]


def test_missing_files_are_named(adapter: Path, base: Path) -> None:
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_model.safetensors").unlink()
    assert {check.subject for check in check_adapter(adapter, base).refusals} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_sizes_are_capped(adapter: Path, base: Path) -> None:
    limits = AdapterLimits(weights_bytes=100, config_bytes=10, text_bytes=5)
    (adapter / "README.md").write_text("too long")
    report = check_adapter(adapter, base, limits)
    named = {check.subject for check in report.refusals if check.name == "files.size"}
    assert named == {"README.md", "adapter_config.json", "adapter_model.safetensors"}


def test_rank_follows_the_pool(adapter: Path, base: Path) -> None:
    assert check_adapter(adapter, base, AdapterLimits(max_rank=4)).passed
    refused = check_adapter(adapter, base, AdapterLimits(max_rank=3)).refusals
    assert [check.subject for check in refused] == ["r"]
    assert "1 to 3" in refused[0].message_en


@pytest.mark.parametrize(
    ("name", "shape", "rule"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (4, 9), "tensors.shapes"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", (8, 5), "tensors.shapes"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", (8, 4, 1), "tensors.shapes"),
        ("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", (4, 8), "tensors.names"),
        ("base_model.model.model.embed_tokens.lora_A.weight", (4, 8), "tensors.names"),
        ("base_model.model.model.norm.lora_A.weight", (4, 8), "tensors.names"),
        ("model.layers.0.self_attn.q_proj.weight", (8, 8), "tensors.names"),
        ("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", (4, 12), "tensors.pairs"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, base: Path, name: str, shape: tuple[int, ...], rule: str
) -> None:
    tensors = {**adapter_tensors(), name: np.ones(shape, np.float32)}
    report = check_adapter(write_adapter(tmp_path / "bad", tensors=tensors), base)
    assert report.failed(rule)
    expected = (
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") if rule == "tensors.pairs" else name
    )
    assert any(check.subject.startswith(expected) for check in report.refusals if check.name == rule)


@pytest.mark.parametrize(("targets", "gap"), [(["q_proj"], "mlp.up_proj"), (["q_proj", "up_proj", "o_proj"], "o_proj")])
def test_targets_and_tensors_must_agree(tmp_path: Path, base: Path, targets: list[str], gap: str) -> None:
    folder = write_adapter(tmp_path / "bad", config={"target_modules": targets})
    refusals = check_adapter(folder, base).refusals
    assert {check.name for check in refusals} == {"tensors.targets"}
    assert all(check.subject.endswith(gap) for check in refusals)


def test_wide_and_whole_number_words_are_refused(tmp_path: Path, base: Path) -> None:
    for dtype in (np.float64, np.int64, np.uint8):
        tensors = {name: tensor.astype(dtype) for name, tensor in adapter_tensors().items()}
        report = check_adapter(write_adapter(tmp_path / dtype.__name__, tensors=tensors), base)
        assert {check.name for check in report.refusals} == {"tensors.dtypes"}


def test_empty_tensors_are_refused(tmp_path: Path, base: Path) -> None:
    tensors = {**adapter_tensors(), "base_model.model.x": np.zeros((0,), np.float32)}
    assert check_adapter(write_adapter(tmp_path / "bad", tensors=tensors), base).failed("tensors.empty")


def test_untrained_adapter_only_warns(tmp_path: Path, base: Path) -> None:
    tensors = {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in adapter_tensors().items()}
    report = check_adapter(write_adapter(tmp_path / "zero", tensors=tensors), base)
    assert report.passed
    assert [(check.name, check.severity) for check in report.warnings] == [("tensors.trained", Severity.WARN)]


def test_long_lists_of_findings_are_cut(tmp_path: Path, base: Path) -> None:
    strange = {f"x{number}": np.ones(1, np.float32) for number in range(50)}
    report = check_adapter(write_adapter(tmp_path / "bad", tensors={**adapter_tensors(), **strange}), base)
    assert len([check for check in report.refusals if check.name == "tensors.names"]) == 11
    assert "40 more" in report.refusals[-1].message_en
