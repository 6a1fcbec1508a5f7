"""Reading JSON of strangers: one meaning per document, bounded size and depth.

It leaves what the keys mean to its callers.
"""

import json
import math
from pathlib import Path
from typing import NoReturn

from registry.errors import RegistryError

MAX_DEPTH = 32


class JsonRefusedError(RegistryError):
    """The document is not strict JSON."""

    code = "json_refused"


def read_json_object(path: Path, *, max_bytes: int) -> dict[str, object]:
    """Return the object in `path`.

    Raises: JsonRefusedError naming the file for size, encoding, duplicate keys, NaN, depth or another top type.
    """
    size_bytes = path.stat().st_size
    if size_bytes > max_bytes:
        _refuse(
            path.name, f"has {size_bytes} bytes, the limit is {max_bytes}", f"大小 {size_bytes} 字节，上限 {max_bytes}"
        )
    return parse_json_object(path.read_bytes(), name=path.name)


def parse_json_object(raw: bytes, *, name: str, max_depth: int = MAX_DEPTH) -> dict[str, object]:
    """Return the object in `raw`; `name` stands in the refusals.

    Raises: JsonRefusedError.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        _refuse(name, f"is not strict JSON: {reason}", f"不是严格的 JSON：{reason}")
    if not isinstance(value, dict):
        _refuse(name, "must hold one JSON object", "必须是一个 JSON 对象")
    if _depth_exceeds(value, max_depth):
        _refuse(name, f"is nested deeper than {max_depth} levels", f"嵌套超过 {max_depth} 层")
    if not _is_unicode(value):
        _refuse(name, "holds half a surrogate pair", "含有不完整的 Unicode 代理对")
    return value


def find_keys(value: object, wanted: frozenset[str]) -> list[str]:
    """Return the dotted paths of all `wanted` keys at any depth."""
    found: list[str] = []
    stack: list[tuple[str, object]] = [("", value)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, dict):
            found.extend(f"{path}{key}" for key in node if key in wanted)
            stack.extend((f"{path}{key}.", child) for key, child in node.items())
        elif isinstance(node, list):
            stack.extend((f"{path}{index}.", child) for index, child in enumerate(node))
    return sorted(found)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"key '{key[:80]}' stands twice")
        unique[key] = value
    return unique


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def _depth_exceeds(value: object, limit: int) -> bool:
    stack: list[tuple[int, object]] = [(1, value)]
    while stack:
        depth, node = stack.pop()
        if depth > limit:
            return True
        if isinstance(node, dict):
            stack.extend((depth + 1, child) for child in node.values())
        elif isinstance(node, list):
            stack.extend((depth + 1, child) for child in node)
    return False


def _is_unicode(value: object) -> bool:
    # Half a pair passes json.loads and breaks the database and the answer later.
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse(name: str, en: str, zh: str) -> NoReturn:
    raise JsonRefusedError(
        f"{name} {en}. Write it again with an ordinary JSON writer.",
        f"{name} {zh}。请用普通 JSON 工具重新生成。",
        field=name,
    )
