"""Pure rules of data sets: accepted formats and sizes, the column mapping, what a report means for the state.

It leaves reading rows to `python -m finetune` and files to `hub.datasets.files`.
"""

import json
from collections.abc import Mapping
from typing import Any

from finetune.spec import ColumnRole, FixAction, SourceFormat
from hub.datasets.tables import DatasetState
from hub.errors import InvalidValueError

MAX_UPLOAD_BYTES = 500 * 1024 * 1024
MAX_NAME_CHARS = 80
_SUFFIXES = {
    ".jsonl": SourceFormat.JSONL,
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.CSV,
    ".xlsx": SourceFormat.XLSX,
}


def read_format(file_name: str) -> SourceFormat:
    """Return the format that a file name stands for. Raises: InvalidValueError."""
    suffix = "." + file_name.rpartition(".")[2].lower() if "." in file_name else ""
    if suffix not in _SUFFIXES:
        allowed = ", ".join(_SUFFIXES)
        raise InvalidValueError(
            f"'{suffix or file_name}' is not supported; allowed: {allowed}. Save the file as one of them.",
            f"不支持“{suffix or file_name}”格式，可用：{allowed}。请另存后上传。",
            field="file",
        )
    return _SUFFIXES[suffix]


def read_name(text: str) -> str:
    """Return the data set's name without outer blanks. Raises: InvalidValueError."""
    name = text.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InvalidValueError(
            f"The name has {len(name)} characters; allowed are 1 to {MAX_NAME_CHARS}. Choose another.",
            f"名称为 {len(name)} 个字符，应为 1 至 {MAX_NAME_CHARS} 个。请修改。",
            field="name",
        )
    return name


def read_mapping(text: str | None) -> dict[str, ColumnRole]:
    """Return column name to role from JSON text; empty or missing lets check guess. Raises: InvalidValueError."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad_mapping(f"not valid JSON ({error.msg}, character {error.pos})") from error
    if not isinstance(value, dict):
        raise _bad_mapping("not an object of column name to role")
    return read_roles(value)


def read_roles(value: Mapping[str, Any]) -> dict[str, ColumnRole]:
    """Return column name to role. Raises: InvalidValueError."""
    for column, role in value.items():
        if role not in list(ColumnRole):
            raise _bad_mapping(f"role {role!r} of column {column!r}; roles: {', '.join(ColumnRole)}")
    return {column: ColumnRole(role) for column, role in value.items()}


def read_fixes(report: Mapping[str, Any] | None, wishes: Mapping[str, str]) -> dict[str, FixAction]:
    """Return corrections by code, each of which the report offers. Raises: InvalidValueError."""
    offered = {issue["code"]: (issue.get("fix") or {}).get("offers", []) for issue in (report or {}).get("issues", [])}
    for code, action in wishes.items():
        offers = offered.get(code, [])
        if action not in offers:
            allowed = ", ".join(offers) or "-"
            raise InvalidValueError(
                f"fixes: '{action[:40]}' of '{code[:60]}' is not offered; offered: {allowed}. Take one of the report.",
                f"fixes：“{code[:60]}”不提供“{action[:40]}”，可用：{allowed}。请按检查报告选择。",
                field="fixes",
            )
    return {code: FixAction(action) for code, action in wishes.items()}


def judge_report(report: Mapping[str, Any]) -> DatasetState:
    """Return the state that a report leads to: errors block, warnings wait for one acknowledgement."""
    summary = report["summary"]
    if summary["errors"]:
        return DatasetState.BLOCKED
    return DatasetState.WARNED if summary["warnings"] else DatasetState.READY


def too_large(size_bytes: int) -> InvalidValueError:
    """Return the error for an upload above the limit; `size_bytes` as far as it was read."""
    limit_mib = MAX_UPLOAD_BYTES // 1024 // 1024
    return InvalidValueError(
        f"The file has more than {size_bytes} bytes; the limit is {limit_mib} MiB. Split it into several data sets.",
        f"文件超过 {size_bytes} 字节，上限为 {limit_mib} MiB。请拆分后上传。",
        field="file",
        limit=MAX_UPLOAD_BYTES,
    )


def _bad_mapping(why: str) -> InvalidValueError:
    example = '{"question": "prompt", "answer": "completion"}'
    return InvalidValueError(
        f"mapping is {why}. Send for example {example}.",
        f"mapping 有误：{why}。示例：{example}。",
        field="mapping",
    )
