"""The upload gate for adapters: one report with every finding, whatever else fails.

It leaves storing to `registry.store` and the decision to publish to the hub. Nothing here loads a model.
"""

from dataclasses import dataclass
from pathlib import Path

from registry.adapter_config import AdapterConfig, check_adapter_config
from registry.adapter_tensors import check_adapter_tensors, check_adapter_values, read_base_shapes
from registry.report import Report
from registry.safetensors_header import ADAPTER_LIMITS, SafetensorsRefusedError, TensorEntry, read_header
from registry.upload_files import check_size, list_plain_files, read_json_file

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
REQUIRED_NAMES = (CONFIG_NAME, WEIGHTS_NAME)
ALLOWED_NAMES = frozenset({WEIGHTS_NAME, CONFIG_NAME, "README.md", "LICENSE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLimits:
    """Caps of one upload; `max_rank` is what the pool serves."""

    max_rank: int = 64
    weights_bytes: int = 2 * 1024**3
    config_bytes: int = 64 * 1024
    text_bytes: int = 1024 * 1024

    def by_name(self) -> dict[str, int]:
        """Return the cap in bytes of each file."""
        return {
            WEIGHTS_NAME: self.weights_bytes,
            CONFIG_NAME: self.config_bytes,
            "README.md": self.text_bytes,
            "LICENSE": self.text_bytes,
        }


def check_adapter(folder: Path, base: Path, limits: AdapterLimits | None = None) -> Report:
    """Return every finding on the adapter in `folder` against the base model in `base`.

    Raises: SafetensorsRefusedError if the *base* is broken; a broken upload is a finding, never an exception.
    """
    limits = limits or AdapterLimits()
    report = Report()
    sizes = list_plain_files(folder, report)
    _check_names(sizes, report)
    check_size(sizes, limits.by_name(), report)
    config = _read_config(folder, sizes, report, limits=limits)
    entries = _read_weights(folder, sizes, report, limits=limits)
    if entries is not None:
        usable = [entry for entry in entries if entry.end > entry.begin]
        if config is not None:
            check_adapter_tensors(usable, report, config=config, base_shapes=read_base_shapes(base))
        check_adapter_values(folder / WEIGHTS_NAME, usable, report)
        _check_none_empty(len(entries) - len(usable), report)
    return report


def _check_names(sizes: dict[str, int], report: Report) -> None:
    strange = sorted(sizes.keys() - ALLOWED_NAMES)
    missing = [name for name in REQUIRED_NAMES if name not in sizes]
    allowed = ", ".join(sorted(ALLOWED_NAMES))
    for name in strange:
        report.reject(
            "files.names",
            f"文件 {name!r} 不允许",
            f"File {name!r} is not allowed",
            fix_zh=f"只接受 {allowed}",
            fix_en=f"Only {allowed} are taken",
            subject=name,
        )
    for name in missing:
        report.reject(
            "files.names",
            f"缺少 {name}",
            f"{name} is missing",
            fix_zh="请用 PEFT 的 save_pretrained 保存后上传这两个文件",
            fix_en="Save with PEFT's save_pretrained and upload both files",
            subject=name,
        )
    if not strange and not missing:
        report.accept("files.names", "文件名均在允许清单内", "All file names are on the allow-list")


def _read_config(folder: Path, sizes: dict[str, int], report: Report, *, limits: AdapterLimits) -> AdapterConfig | None:
    if CONFIG_NAME not in sizes:
        return None
    raw = read_json_file(folder / CONFIG_NAME, report, max_bytes=limits.config_bytes)
    return None if raw is None else check_adapter_config(raw, report, max_rank=limits.max_rank)


def _read_weights(
    folder: Path, sizes: dict[str, int], report: Report, *, limits: AdapterLimits
) -> list[TensorEntry] | None:
    if not 0 <= sizes.get(WEIGHTS_NAME, -1) <= limits.weights_bytes:
        return None
    try:
        entries = read_header(folder / WEIGHTS_NAME, ADAPTER_LIMITS)
    except SafetensorsRefusedError as error:
        report.reject_error("weights.header", error)
        return None
    report.accept("weights.header", f"{len(entries)} 个张量", f"{len(entries)} tensors")
    return entries


def _check_none_empty(empty: int, report: Report) -> None:
    if empty:
        report.reject(
            "tensors.empty",
            f"{empty} 个张量没有数据",
            f"{empty} tensors hold no data",
            fix_zh="请重新保存适配器",
            fix_en="Save the adapter again",
        )
