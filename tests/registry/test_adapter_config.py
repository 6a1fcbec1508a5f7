"""Which configurations pass: what PEFT really writes; and which never do: every field of the risk table."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from registry.adapter_check import check_adapter
from registry.adapter_config import KNOWN_KEYS, check_adapter_config
from registry.report import Report
from tests.registry.builders import LORA_CONFIG, write_adapter


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", {"base_model_class": "X", "parent_library": "os"}),
        ("megatron_config", {"x": 1}),
        ("corda_config", {"cache_file": "/etc/passwd"}),
        ("lora_ga_config", {"cache_file": "x"}),
        ("eva_config", {"rho": 2}),
        ("loftq_config", {"bits": 4}),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", 1),
        ("target_modules", "(a+)+$"),
        ("target_modules", "all-linear"),
        ("target_modules", ["(a+)+$"]),
        ("target_modules", [".*"]),
        ("target_modules", []),
        ("target_modules", ["q_proj", 3]),
        ("target_modules", [f"m{number}" for number in range(65)]),
        ("exclude_modules", ".*"),
        ("rank_pattern", {"^(a+)+$": 8}),
        ("alpha_pattern", {"q": 8}),
        ("layers_pattern", "h"),
        ("layers_to_transform", "0"),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("use_dora", True),
        ("use_qalora", True),
        ("use_bdlora", {"x": 1}),
        ("lora_bias", True),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("layer_replication", [[0, 4]]),
        ("target_parameters", ["x"]),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"x": 1}),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", ["LORA"]),
        ("task_type", "SEQ_CLS"),
        ("r", 0),
        ("r", -1),
        ("r", True),
        ("r", 8.0),
        ("r", 10**400),
        ("r", "8"),
        ("lora_alpha", 0),
        ("lora_alpha", 10**400),
        ("lora_alpha", True),
        ("lora_alpha", "x"),
        ("lora_dropout", 1),
        ("base_model_name_or_path", {"x": 1}),
        ("base_model_name_or_path", "x" * 2000),
    ],
)
def test_dangerous_values_are_refused_by_name(key: str, value: Any) -> None:
    report = Report()
    check_adapter_config({**LORA_CONFIG, key: value}, report, max_rank=64)
    assert [(check.name, check.subject) for check in report.refusals] == [("adapter_config.values", key)]


@pytest.mark.parametrize("key", ["runtime_config", "tokenizer_kwargs", "tokenizer_name_or_path", "x" * 500])
def test_unknown_keys_are_refused(key: str) -> None:
    report = Report()
    check_adapter_config({**LORA_CONFIG, key: None}, report, max_rank=64)
    assert [check.subject for check in report.refusals] == [key[:80]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("megatron_core", "megatron.core"),
        ("base_model_name_or_path", "/content/drive/MyDrive/qwen"),
        ("base_model_name_or_path", None),
        ("init_lora_weights", "gaussian"),
        ("layers_to_transform", [0, 1]),
        ("exclude_modules", ["lm_head"]),
        ("use_rslora", True),
        ("lora_alpha", 16.0),
        ("revision", "main"),
        ("task_type", None),
    ],
)
def test_ordinary_values_pass(key: str, value: Any) -> None:
    report = Report()
    config = check_adapter_config({**LORA_CONFIG, key: value}, report, max_rank=64)
    assert report.passed
    assert config is not None
    assert config.rank == LORA_CONFIG["r"]


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_missing_keys_are_named(key: str) -> None:
    report = Report()
    check_adapter_config({name: value for name, value in LORA_CONFIG.items() if name != key}, report, max_rank=64)
    assert [check.subject for check in report.refusals] == [key]


def test_pattern_is_refused_without_being_run() -> None:
    started = time.perf_counter()
    check_adapter_config({**LORA_CONFIG, "target_modules": ["(a+)+$" * 20] * 60}, report := Report(), max_rank=64)
    assert not report.passed
    assert time.perf_counter() - started < 5  # run as a pattern it would not end


@pytest.mark.parametrize(
    "text",
    [
        '{"r": 4, "r": 8}',
        '{"r": NaN}',
        '{"r": 1e999}',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' * 40 + "1" + "}" * 40,
        '{"a": "\\ud800"}',
        "[]",
        "",
        "{",
        "\x80\x04\x95pickle",
        '{"r": ' + "9" * 5000 + "}",
    ],
)
def test_loose_json_is_refused(adapter: Path, base: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text, encoding="latin-1")
    (check,) = check_adapter(adapter, base).refusals
    assert check.name == "json.strict"
    json.dumps(check.message_zh).encode()


@pytest.mark.parametrize("key", ["trust_remote_code", "auto_map", "custom_pipelines"])
def test_keys_that_load_code_are_found_at_any_depth(tmp_path: Path, base: Path, key: str) -> None:
    folder = write_adapter(
        tmp_path / "bad", config={"eva_config": {"deep": [{key: "x.py"}]}, f"eva_config.{key}": None}
    )
    report = check_adapter(folder, base)
    assert [c.subject for c in report.refusals if c.name == "json.no_code"] == [f"eva_config.deep.0.{key}"]


@pytest.mark.engine
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"init_lora_weights": "gaussian", "lora_dropout": 0.1}])
def test_what_peft_writes_passes(tmp_path: Path, options: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **options))
    tuned.save_pretrained(str(tmp_path / "adapter"))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written["megatron_core"] == "megatron.core"
    assert written.keys() <= KNOWN_KEYS
    report = check_adapter(tmp_path / "adapter", tmp_path / "base")
    assert report.refusals == []
    assert [check.name for check in report.warnings] == ["tensors.trained"]
