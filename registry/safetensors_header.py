"""The strict reading of a safetensors header: refuses what the library lets through.

The library accepts duplicate keys, leading spaces, unknown fields, path-like names, huge metadata and empty
tensors by the hundred thousand; this does not. It leaves the values of the tensors to its callers.
Source: https://github.com/huggingface/safetensors#format
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError, safe_open

from registry.errors import RegistryError
from registry.strict_json import JsonRefusedError, parse_json_object

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_NAME_CHARS = 256
_MAX_DIMENSIONS = 8
_LENGTH_BYTES = 8


class SafetensorsRefusedError(RegistryError):
    """The file is not strict safetensors."""

    code = "safetensors_refused"


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Caps of one kind of file."""

    tensors: int
    header_bytes: int
    metadata_bytes: int = 64 * 1024


ADAPTER_LIMITS = HeaderLimits(tensors=4096, header_bytes=2 * 1024 * 1024)
BASE_LIMITS = HeaderLimits(tensors=65_536, header_bytes=32 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: `begin` and `end` are byte positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, limits: HeaderLimits) -> list[TensorEntry]:
    """Return the tensors of `path` in file order, after the strict check and the library's own.

    Raises: SafetensorsRefusedError naming the file and the tensor.
    """
    size_bytes = path.stat().st_size
    header, data_start = _load_header(path, size_bytes, limits)
    _check_metadata(path.name, header.pop("__metadata__", {}), limits)
    if len(header) > limits.tensors:
        _refuse(
            path.name,
            f"holds {len(header)} tensors, the limit is {limits.tensors}",
            f"张量数 {len(header)}，上限 {limits.tensors}",
        )
    entries = [_read_entry(path.name, name, raw, data_start) for name, raw in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_layout(path.name, entries, start=data_start, size_bytes=size_bytes)
    _check_with_library(path, len(entries))
    return entries


def _load_header(path: Path, size_bytes: int, limits: HeaderLimits) -> tuple[dict[str, object], int]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size_bytes < _LENGTH_BYTES + 2 or not 2 <= length <= size_bytes - _LENGTH_BYTES:
            _refuse(
                path.name,
                f"is cut short or no safetensors file ({size_bytes} bytes)",
                f"不完整或不是 safetensors 文件（{size_bytes} 字节）",
            )
        if length > limits.header_bytes:
            _refuse(
                path.name,
                f"has a header of {length} bytes, the limit is {limits.header_bytes}",
                f"文件头 {length} 字节，上限 {limits.header_bytes}",
            )
        raw = stream.read(length)
    if not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        _refuse(path.name, "has a header that is not one JSON object", "文件头不是一个 JSON 对象")
    try:
        return parse_json_object(raw, name=f"header of {path.name}", max_depth=4), _LENGTH_BYTES + length
    except JsonRefusedError as error:
        raise SafetensorsRefusedError(error.en, error.zh, field=path.name) from error


def _check_metadata(file: str, metadata: object, limits: HeaderLimits) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(file, "has metadata that is not text by name", "元数据必须是“名称: 文本”")
    size_bytes = sum(len(key) + len(value) for key, value in metadata.items() if isinstance(value, str))
    if size_bytes > limits.metadata_bytes:
        _refuse(
            file,
            f"has {size_bytes} bytes of metadata, the limit is {limits.metadata_bytes}",
            f"元数据 {size_bytes} 字节，上限 {limits.metadata_bytes}",
        )


def _read_entry(file: str, name: str, raw: object, data_start: int) -> TensorEntry:
    if len(name) > _MAX_NAME_CHARS or not _NAME.fullmatch(name):
        _refuse(file, f"has a tensor with the name {name[:60]!r}", f"张量名 {name[:60]!r} 不允许")
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(
            file,
            f"describes {name} by other fields than dtype, shape, data_offsets",
            f"{name} 的字段不是 dtype、shape、data_offsets",
        )
    dtype, shape, offsets = raw["dtype"], _read_ints(raw["shape"]), _read_ints(raw["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _refuse(
            file, f"gives {name} the unknown dtype {str(dtype)[:20]!r}", f"{name} 的数据类型 {str(dtype)[:20]!r} 未知"
        )
    if shape is None or len(shape) > _MAX_DIMENSIONS or offsets is None or len(offsets) != 2:
        _refuse(file, f"gives {name} a broken shape or place", f"{name} 的形状或位置不正确")
    if math.prod(shape) * DTYPE_BYTES[dtype] != offsets[1] - offsets[0]:
        _refuse(
            file,
            f"gives {name} a place that does not fit shape {list(shape)}",
            f"{name} 的位置与形状 {list(shape)} 不符",
        )
    return TensorEntry(name, dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _read_ints(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = tuple(item for item in value if type(item) is int and 0 <= item < 2**53)
    return numbers if len(numbers) == len(value) else None


def _check_layout(file: str, entries: list[TensorEntry], *, start: int, size_bytes: int) -> None:
    position = start
    for entry in entries:
        if entry.begin != position:
            _refuse(file, f"has a hole or an overlap before {entry.name}", f"{entry.name} 之前有空洞或重叠")
        position = entry.end
    if position != size_bytes:
        _refuse(
            file,
            f"ends {size_bytes - position} bytes away from its last tensor",
            f"文件结尾与最后一个张量相差 {size_bytes - position} 字节",
        )


def _check_with_library(path: Path, expected: int) -> None:
    try:
        with safe_open(path, framework="numpy") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        _refuse(path.name, f"is refused by the safetensors library: {error}", f"被 safetensors 库拒绝：{error}")
    if len(names) != expected:
        _refuse(
            path.name,
            f"holds {len(names)} tensors for the library, {expected} here",
            f"张量数不一致：{len(names)} 与 {expected}",
        )


def _refuse(file: str, en: str, zh: str) -> NoReturn:
    raise SafetensorsRefusedError(
        f"{file} {en}. Save it again with safetensors' save_file.",
        f"{file} {zh}。请用 safetensors 的 save_file 重新保存。",
        field=file,
    )
