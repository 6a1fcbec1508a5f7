"""The files of an upload as they lie in a folder: allow-listed names, plain files, sizes.

It leaves what stands in the files to the gates of their kinds.
"""

import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from registry.report import Report
from registry.strict_json import JsonRefusedError, find_keys, read_json_object

# Any of these keys can make a loader run code of the uploader.
CODE_KEYS = frozenset({"trust_remote_code", "auto_map", "custom_pipelines", "auto_mapping", "parent_library"})


def list_plain_files(folder: Path, report: Report, *, left_out: Collection[str] = ()) -> dict[str, int]:
    """Return name -> size in bytes of the folder's plain files; links, folders and pipes are rejected in the report.

    Folders named in `left_out` are passed over.
    """
    plain: dict[str, int] = {}
    odd: list[str] = []
    for entry in sorted(folder.iterdir()):
        status = entry.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            plain[entry.name] = status.st_size
        elif not (stat.S_ISDIR(status.st_mode) and entry.name in left_out):
            odd.append(entry.name)
    for name in odd:
        report.reject(
            "files.plain",
            f"{name!r} 不是普通文件",
            f"{name!r} is no plain file of its own (a link, a folder or a pipe)",
            fix_zh="请只上传普通文件，链接请用 cp -L 复制为实际文件",
            fix_en="Upload plain files only; copy links with cp -L",
            subject=name,
        )
    if not odd:
        report.accept("files.plain", f"{len(plain)} 个普通文件", f"{len(plain)} plain files")
    return plain


def check_size(sizes: Mapping[str, int], limits: Mapping[str, int], report: Report) -> None:
    """Check every file that has a limit, in bytes."""
    over = {name: size for name, size in sizes.items() if size > limits.get(name, size)}
    for name, size in over.items():
        report.reject(
            "files.size",
            f"{name} 有 {size} 字节，上限 {limits[name]}",
            f"{name} has {size} bytes, the limit is {limits[name]}",
            fix_zh="请缩小该文件",
            fix_en="Make the file smaller",
            subject=name,
        )
    if not over:
        report.accept("files.size", f"合计 {sum(sizes.values())} 字节", f"{sum(sizes.values())} bytes in all")


def read_json_file(path: Path, report: Report, *, max_bytes: int) -> dict[str, object] | None:
    """Return the object of a JSON file without keys that load code, or None after rejecting it in the report."""
    try:
        value = read_json_object(path, max_bytes=max_bytes)
    except JsonRefusedError as error:
        report.reject_error("json.strict", error)
        return None
    found = [key for key in find_keys(value, CODE_KEYS) if not _is_empty(value, key)]
    for key in found:
        report.reject(
            "json.no_code",
            f"{path.name} 的 {key} 会加载代码",
            f"{path.name} asks to load code by {key}",
            fix_zh="请删除该键；平台从不运行上传者的代码",
            fix_en="Delete the key; code of uploaders never runs here",
            subject=key,
        )
    if not found:
        report.accept("json.no_code", f"{path.name} 不加载代码", f"{path.name} loads no code", subject=path.name)
    return value


def _is_empty(value: dict[str, object], dotted: str) -> bool:
    # `auto_mapping: null` stands in every ordinary adapter_config.json; only a top-level null is harmless.
    return "." not in dotted and value[dotted] in (None, False)
