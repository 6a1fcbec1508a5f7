"""Whether the tensors of an adapter are LoRA pairs that fit the chosen base, with finite values.

It leaves the configuration to `registry.adapter_config` and the file's layout to `registry.safetensors_header`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from registry.adapter_config import AdapterConfig
from registry.report import Report
from registry.safetensors_header import BASE_LIMITS, TensorEntry, read_header

# PEFT writes base_model.model.<module>.lora_A.weight; the adapter's own name ("default") is dropped when saving.
_LORA_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
# The exponent bits all set mean infinity or not-a-number; as unsigned integers no bfloat16 type is needed.
_EXPONENT = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
_UNSERVED = frozenset({"embed_tokens", "lm_head", "wte", "wpe"})
_CHUNK_BYTES = 4 * 1024 * 1024
_SHOWN = 10


def read_base_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Return module -> weight shape (out, in) of the base's matrices, read from its headers only.

    Raises: SafetensorsRefusedError.
    """
    entries = [entry for shard in sorted(base.glob("*.safetensors")) for entry in read_header(shard, BASE_LIMITS)]
    suffix = ".weight"
    return {
        entry.name.removesuffix(suffix): entry.shape
        for entry in entries
        if entry.name.endswith(suffix) and len(entry.shape) == 2
    }


def check_adapter_tensors(
    entries: Sequence[TensorEntry],
    report: Report,
    *,
    config: AdapterConfig,
    base_shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Check names, pairs, targets, shapes and dtypes of all tensors."""
    halves: dict[tuple[str, str], TensorEntry] = {}
    strange: list[str] = []
    for entry in entries:
        match = _LORA_NAME.fullmatch(entry.name)
        if match and match["module"] in base_shapes and match["module"].rsplit(".", 1)[-1] not in _UNSERVED:
            halves[match["module"], match["half"]] = entry
        else:
            strange.append(entry.name)
    _note(
        report,
        "tensors.names",
        strange,
        "不是所选基础模型线性层的 lora_A/lora_B",
        "is no lora_A/lora_B of a linear layer of the chosen base",
    )
    modules = sorted({module for module, _ in halves})
    lonely = [module for module in modules if (module, "A") not in halves or (module, "B") not in halves]
    _note(
        report,
        "tensors.pairs",
        lonely or ([] if modules else ["lora_A/lora_B"]),
        "缺少成对的 lora_A/lora_B",
        "lacks its lora_A or lora_B",
    )
    _note(
        report,
        "tensors.targets",
        _find_target_gaps(modules, config),
        "与 target_modules 不一致",
        "does not agree with target_modules",
    )
    _note(
        report,
        "tensors.shapes",
        _find_misfits(halves, config.rank, base_shapes),
        "与基础模型的形状或 r 不符",
        "does not fit the base's shape or r",
    )
    wrong = [f"{entry.name} ({entry.dtype})" for entry in entries if entry.dtype not in _EXPONENT]
    _note(report, "tensors.dtypes", wrong, "数据类型必须是 F32、F16 或 BF16", "must be F32, F16 or BF16")


def check_adapter_values(path: Path, entries: Sequence[TensorEntry], report: Report) -> None:
    """Check that every value is finite; warn where every lora_B is zero, which changes nothing in the base."""
    with path.open("rb") as stream:
        readable = [entry for entry in entries if entry.dtype in _EXPONENT]
        scanned = {entry.name: _scan_values(stream.seek, stream.read, entry) for entry in readable}
    broken = [name for name, (finite, _) in scanned.items() if not finite]
    _note(report, "tensors.finite", broken, "含有 NaN 或无穷大", "holds NaN or infinity")
    zero = [any_set for name, (_, any_set) in scanned.items() if name.endswith(".lora_B.weight")]
    if zero and not any(zero):
        report.warn(
            "tensors.trained",
            "所有 lora_B 均为零，适配器与基础模型没有差别",
            "All lora_B are zero: the adapter changes nothing",
            fix_zh="请确认保存的是训练之后的适配器",
            fix_en="Make sure that the adapter was saved after training",
        )


def _find_target_gaps(modules: Iterable[str], config: AdapterConfig) -> list[str]:
    uncovered = {name: True for name in config.target_modules}
    strays = []
    for module in modules:
        hits = [name for name in config.target_modules if module == name or module.endswith(f".{name}")]
        uncovered.update(dict.fromkeys(hits, False))
        if not hits:
            strays.append(module)
    return strays + [name for name, alone in uncovered.items() if alone]


def _find_misfits(
    halves: Mapping[tuple[str, str], TensorEntry], rank: int, base_shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    misfits = []
    for (module, half), entry in halves.items():
        out_features, in_features = base_shapes[module]
        expected = (rank, in_features) if half == "A" else (out_features, rank)
        if entry.shape != expected:
            misfits.append(f"{entry.name} {list(entry.shape)} != {list(expected)}")
    return misfits


def _scan_values(seek: Callable[[int], int], read: Callable[[int], bytes], entry: TensorEntry) -> tuple[bool, bool]:
    word, mask = _EXPONENT[entry.dtype]
    seek(entry.begin)
    left, finite, any_set = entry.end - entry.begin, True, False
    while left > 0:
        chunk = read(min(left, _CHUNK_BYTES))
        if not chunk:
            return False, any_set
        words = np.frombuffer(chunk, dtype=word)
        finite = finite and not bool(((words & mask) == mask).any())
        any_set = any_set or bool((words << 1).any())  # shifted: minus zero is zero too
        left -= words.nbytes
    return finite, any_set


def _note(report: Report, name: str, bad: Sequence[str], zh: str, en: str) -> None:
    for subject in bad[:_SHOWN]:
        report.reject(
            name,
            f"{subject} {zh}",
            f"{subject} {en}",
            fix_zh="请在所选基础模型上以普通 LoRA 训练，并用 save_pretrained 保存",
            fix_en="Train plain LoRA on the chosen base and save it with save_pretrained",
            subject=subject,
        )
    if len(bad) > _SHOWN:
        report.reject(
            name,
            f"另有 {len(bad) - _SHOWN} 处相同问题",
            f"{len(bad) - _SHOWN} more of the same",
            fix_zh="同上",
            fix_en="As above",
        )
    if not bad:
        report.accept(name, "通过", "Holds")
