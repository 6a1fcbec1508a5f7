"""Which adapter_config.json may come in: plain LoRA as PEFT writes it and vLLM serves it.

It leaves the tensors to `registry.adapter_tensors`. Every key is known and every key that loads code, opens a path,
runs a pattern or changes the architecture must be at its harmless default.
Source: https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/config.py (0.21)
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.report import Report

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_MAX_MODULE_NAMES = 64
_MAX_TEXT_CHARS = 1024
_MAX_NUMBER = 65_536


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What the rest of the gate needs of the configuration."""

    rank: int
    target_modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    holds: Callable[[object], bool]
    en: str
    zh: str


def _is_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS)


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ({}, [])


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MAX_NUMBER


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _is_layer_list(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return value is None or all(type(number) is int and 0 <= number < 1000 for number in numbers)


def _is_name_list(value: object) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MAX_MODULE_NAMES
        and all(isinstance(name, str) and len(name) <= 128 and bool(_PLAIN_NAME.fullmatch(name)) for name in value)
    )


_TEXT = _Rule(_is_text, f"text of at most {_MAX_TEXT_CHARS} characters", f"不超过 {_MAX_TEXT_CHARS} 个字符的文本")
_EMPTY = _Rule(_is_empty, "empty (null, false, {} or [])", "空（null、false、{} 或 []）")
_FLAG = _Rule(_is_flag, "true or false", "true 或 false")

_MUST_BE_EMPTY = (
    *("auto_mapping", "megatron_config", "corda_config", "lora_ga_config"),  # load code or open a path
    *("rank_pattern", "alpha_pattern", "layers_pattern"),  # patterns of the uploader
    *("eva_config", "loftq_config", "kasa_config", "velora_config", "monteclora_config"),  # compute while loading
    *("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "ensure_weight_tying"),
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"),  # not served by vLLM
    *("alora_invocation_tokens", "arrow_config"),
)

_RULES: Mapping[str, _Rule] = {
    "peft_type": _Rule(lambda value: value == "LORA", '"LORA"', '"LORA"'),
    "target_modules": _Rule(
        _is_name_list,
        f"a list of 1 to {_MAX_MODULE_NAMES} plain module names (a text is read as a pattern)",
        f"1 到 {_MAX_MODULE_NAMES} 个普通模块名的列表（文本会被当作正则）",
    ),
    "lora_alpha": _Rule(_is_positive, f"a number above 0, at most {_MAX_NUMBER}", f"大于 0、不超过 {_MAX_NUMBER} 的数"),
    "task_type": _Rule(lambda value: value in (None, "CAUSAL_LM"), '"CAUSAL_LM"', '"CAUSAL_LM"'),
    "bias": _Rule(lambda value: value == "none", '"none"', '"none"'),
    "init_lora_weights": _Rule(
        lambda value: value is True or value is False or value == "gaussian",
        'true, false or "gaussian"',
        'true、false 或 "gaussian"',
    ),
    "lora_dropout": _Rule(_is_share, "a number from 0 to below 1", "0 到 1（不含 1）的数"),
    "layers_to_transform": _Rule(_is_layer_list, "null or layer numbers", "null 或层号"),
    "exclude_modules": _Rule(
        lambda value: value is None or value == [] or _is_name_list(value),
        "null or plain module names",
        "null 或普通模块名",
    ),
    "inference_mode": _FLAG,
    "use_rslora": _FLAG,
    "qalora_group_size": _Rule(_is_positive, "a number above 0", "大于 0 的数"),
    # Written by PEFT into every adapter; without megatron_config nothing reads it.
    "megatron_core": _TEXT,
    # Never used: the base is the one the uploader chose in the catalogue.
    "base_model_name_or_path": _TEXT,
    "revision": _TEXT,
    "peft_version": _TEXT,
    **dict.fromkeys(
        _MUST_BE_EMPTY,
        _EMPTY,
    ),
}
KNOWN_KEYS = frozenset(_RULES) | {"r"}
_REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")


def check_adapter_config(raw: Mapping[str, object], report: Report, *, max_rank: int) -> AdapterConfig | None:
    """Check every key; return the rank and the targets, or None where these two are not usable."""
    before = len(report.refusals)
    _check_keys(raw, report)
    for key, rule in _RULES.items():
        if key in raw and not rule.holds(raw[key]):
            _reject_value(report, key, raw[key], rule)
    rank = raw.get("r")
    rank_holds = type(rank) is int and 1 <= rank <= max_rank
    if "r" in raw and not rank_holds:
        _reject_value(report, "r", rank, _Rule(bool, f"a whole number from 1 to {max_rank}", f"1 到 {max_rank} 的整数"))
    if len(report.refusals) == before:
        report.accept("adapter_config.values", f"LoRA 配置有效，r={rank}", f"Plain LoRA configuration, r={rank}")
    targets = raw.get("target_modules")
    if not rank_holds or not _is_name_list(targets) or not isinstance(targets, list) or not isinstance(rank, int):
        return None
    return AdapterConfig(rank, tuple(sorted(set(targets))))


def _check_keys(raw: Mapping[str, object], report: Report) -> None:
    unknown = sorted(raw.keys() - KNOWN_KEYS)
    missing = [key for key in _REQUIRED if key not in raw]
    for key in unknown:
        report.reject(
            "adapter_config.keys",
            f"adapter_config.json 含有未知键 {key[:80]!r}",
            f"adapter_config.json has the unknown key {key[:80]!r}",
            fix_zh="请删除该键，或用 PEFT 的 save_pretrained 重新保存",
            fix_en="Delete the key, or save again with PEFT's save_pretrained",
            subject=key[:80],
        )
    for key in missing:
        report.reject(
            "adapter_config.keys",
            f"adapter_config.json 缺少 {key}",
            f"adapter_config.json lacks {key}",
            fix_zh="请用 PEFT 的 save_pretrained 重新保存",
            fix_en="Save again with PEFT's save_pretrained",
            subject=key,
        )
    if not unknown and not missing:
        report.accept("adapter_config.keys", "配置键均已知", "All configuration keys are known")


def _reject_value(report: Report, key: str, value: object, rule: _Rule) -> None:
    shown = repr(value)[:80]
    report.reject(
        "adapter_config.values",
        f"{key} 为 {shown}，必须是：{rule.zh}",
        f"{key} is {shown}; it must be {rule.en}",
        fix_zh="请以普通 LoRA 重新训练或保存适配器",
        fix_en="Train or save the adapter again as plain LoRA",
        subject=key,
    )
