"""Strict JSON codec for frozen dataclasses, driven by their annotations.

Leaves the meaning of the fields to the dataclasses that use it.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import StrEnum

if typing.TYPE_CHECKING:
    Json: typing.TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:  # a recursive alias cannot be resolved by get_type_hints; any parsed value is right by construction
    Json = typing.Any
_T = typing.TypeVar("_T")


class SpecError(ValueError):
    """A message that does not fit its contract: `code` for machines, `field` as a dotted path."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(f"{field or 'document'}: {message}")
        self.code = code
        self.field = field


def encode(value: object) -> Json:
    """Turn a dataclass into plain JSON values; raises SpecError `not_json` for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    raise SpecError("not_json", "", f"{type(value).__name__} has no JSON form; use numbers, text, lists or objects.")


def dump(value: object) -> str:
    """One-line JSON text, keys sorted so that equal values have equal text."""
    return json.dumps(encode(value), ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))


def load(kind: type[_T], text: str) -> _T:
    """Parse JSON text into `kind`; raises SpecError with the path of the first value that does not fit."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError("invalid_json", "", f"not valid JSON ({error.msg}, character {error.pos}).") from error
    return decode(kind, value)


def decode(kind: type[_T], value: Json) -> _T:
    """Build `kind` from parsed JSON; unknown, missing and mistyped fields raise SpecError."""
    return typing.cast(_T, _decode(kind, value, ""))


def _decode(kind: typing.Any, value: Json, path: str) -> object:
    origin = typing.get_origin(kind)
    if kind is typing.Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(typing.get_args(kind), value, path)
    if origin in (Mapping, dict):
        return _decode_mapping(kind, value, path)
    if origin is tuple:
        return _decode_tuple(kind, value, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, path)
    return _decode_scalar(kind, value, path)


def _decode_union(options: tuple[typing.Any, ...], value: Json, path: str) -> object:
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return _decode(rest[0], value, path)
    for option in rest:
        if type(value) is option:
            return value
    raise _wrong(path, " or ".join(option.__name__ for option in rest), value)


def _decode_mapping(kind: typing.Any, value: Json, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(path, "object", value)
    item_kind = typing.get_args(kind)[1]
    return {name: _decode(item_kind, item, _join(path, name)) for name, item in value.items()}


def _decode_tuple(kind: typing.Any, value: Json, path: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise _wrong(path, "list", value)
    item_kind = typing.get_args(kind)[0]
    return tuple(_decode(item_kind, item, f"{path}[{index}]") for index, item in enumerate(value))


def _decode_dataclass(kind: type, value: Json, path: str) -> object:
    if not isinstance(value, dict):
        raise _wrong(path, "object", value)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise SpecError("unknown_field", _join(path, name), f"unknown; known fields: {', '.join(sorted(fields))}.")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise SpecError("missing_field", _join(path, name), "missing; add it.")
    found = {name: _decode(hints[name], item, _join(path, name)) for name, item in value.items()}
    return kind(**found)


def _decode_scalar(kind: typing.Any, value: Json, path: str) -> object:
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            allowed = ", ".join(str(member) for member in kind)
            raise SpecError("invalid_value", path, f"is {value!r}; use one of: {allowed}.")
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _wrong(path, kind.__name__, value)
    return value


def _wrong(path: str, wanted: str, value: Json) -> SpecError:
    return SpecError("wrong_type", path, f"must be {wanted}, not {type(value).__name__}.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
