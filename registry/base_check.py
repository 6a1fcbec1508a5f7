"""The gate for a local Hugging Face folder that is to become a base model, and its facts for the catalogue.

It leaves storing to `registry.store` (copy `import_names`), digests to `registry.identity`, filing to the hub.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.base_facts import BaseFacts, read_facts
from registry.errors import RegistryError
from registry.identity import read_template
from registry.pooling import POOLING_FOLDERS
from registry.report import Report
from registry.safetensors_header import BASE_LIMITS, SafetensorsRefusedError, TensorEntry, read_header
from registry.template_check import MAX_TEMPLATE_BYTES, check_template
from registry.upload_files import check_size, list_plain_files, read_json_file

_TAKEN = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|vocab\.txt|merges\.txt|chat_template\.jinja|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|README\.md|LICENSE(\.txt|\.md)?|NOTICE"
)
_DANGEROUS = re.compile(
    r".*\.(py|pyc|so|sh|whl|bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz|h5|keras|zip|tar|gz|7z|rar)", re.IGNORECASE
)
_REQUIRED = ("config.json", "tokenizer.json")
_CONFIG_BYTES = 1024 * 1024
_SIZE_LIMITS = {
    "config.json": _CONFIG_BYTES,
    "generation_config.json": _CONFIG_BYTES,
    "tokenizer_config.json": 8 * 1024 * 1024,
    "tokenizer.json": 64 * 1024 * 1024,
    "chat_template.jinja": MAX_TEMPLATE_BYTES,
    "README.md": 1024 * 1024,
}
_SCANNED = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
)


@dataclass(frozen=True, slots=True)
class BaseCheck:
    """The report, the files to store, and the facts where the folder is sound enough to read them."""

    report: Report
    import_names: tuple[str, ...]
    facts: BaseFacts | None


def check_base(folder: Path) -> BaseCheck:
    """Return every finding on `folder`; a broken folder is a finding, never an exception."""
    report = Report()
    sizes = list_plain_files(folder, report, left_out=POOLING_FOLDERS)
    taken = _check_names(sizes, report)
    check_size(sizes, _SIZE_LIMITS, report)
    entries = _read_shards(folder, [name for name in taken if name.endswith(".safetensors")], report)
    config = _read_configs(folder, taken, report)
    if sizes.get("chat_template.jinja", 0) <= MAX_TEMPLATE_BYTES:
        _check_folder_template(folder, report)
    facts = read_facts(folder, config, entries, report) if config is not None and entries else None
    return BaseCheck(report, tuple(taken), facts)


def _check_names(sizes: Mapping[str, int], report: Report) -> list[str]:
    taken = [name for name in sizes if _TAKEN.fullmatch(name)]
    dangerous = [name for name in sizes if _DANGEROUS.fullmatch(name)]
    left = [name for name in sizes if name not in taken and name not in dangerous]
    missing = [name for name in _REQUIRED if name not in sizes]
    for name in dangerous:
        report.reject(
            "files.names",
            f"{name} 可能运行代码",
            f"{name} can run code",
            fix_zh="请删除，只保留 safetensors、配置和分词器",
            fix_en="Delete it; keep safetensors, configuration and tokenizer only",
            subject=name,
        )
    for name in missing:
        report.reject(
            "files.names",
            f"缺少 {name}",
            f"{name} is missing",
            fix_zh="请指定完整的 Hugging Face 模型文件夹",
            fix_en="Name a complete Hugging Face folder",
            subject=name,
        )
    if not dangerous and not missing:
        report.accept("files.names", f"{len(taken)} 个文件将导入", f"{len(taken)} files will be imported")
    if left:
        shown = ", ".join(left[:10])
        report.warn(
            "files.left_out",
            f"不导入：{shown}",
            f"Not imported: {shown}",
            fix_zh="无需处理",
            fix_en="Nothing to do",
        )
    return taken


def _read_shards(folder: Path, shards: Sequence[str], report: Report) -> list[TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    try:
        for shard in shards:
            for entry in read_header(folder / shard, BASE_LIMITS):
                if entry.name in entries:
                    _reject_weights(report, f"{entry.name} 出现在多个分片", f"{entry.name} stands in two shards")
                entries[entry.name] = entry
    except SafetensorsRefusedError as error:
        report.reject_error("weights.header", error)
        return []
    if not _is_complete(shards):
        _reject_weights(
            report, f"分片不完整：{', '.join(shards) or '无'}", f"shards are missing: {', '.join(shards) or 'none'}"
        )
    if not report.failed("weights.header"):
        report.accept("weights.header", f"{len(entries)} 个张量", f"{len(entries)} tensors")
    return list(entries.values())


def _is_complete(shards: Sequence[str]) -> bool:
    numbered = [
        match for match in (re.fullmatch(r"model-(\d+)-of-(\d+)\.safetensors", name) for name in shards) if match
    ]
    if not numbered:
        return list(shards) == ["model.safetensors"]
    total = int(numbered[0][2])
    return len(numbered) == len(shards) and {(int(match[1]), int(match[2])) for match in numbered} == {
        (number, total) for number in range(1, total + 1)
    }


def _read_configs(folder: Path, taken: Sequence[str], report: Report) -> dict[str, object] | None:
    for name in _SCANNED:
        if name in taken:
            read_json_file(folder / name, report, max_bytes=_SIZE_LIMITS.get(name, 8 * 1024 * 1024))
    if "config.json" not in taken:
        return None
    return read_json_file(folder / "config.json", report, max_bytes=_CONFIG_BYTES)


def _check_folder_template(folder: Path, report: Report) -> None:
    try:
        template = read_template(folder)
    except RegistryError as error:
        report.reject_error("template.readable", error)
        return
    check_template(template, report)


def _reject_weights(report: Report, zh: str, en: str) -> None:
    report.reject(
        "weights.header",
        zh,
        en,
        fix_zh="请补齐 safetensors 文件",
        fix_en="Complete the safetensors files",
        subject="*.safetensors",
    )
