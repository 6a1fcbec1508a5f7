"""Strict JSON codec between frozen dataclasses and plain values.

The messages themselves live in the modules beside this one; transport and authentication are left to the callers.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from serving.contract.errors import ContractError

CONTRACT_VERSION = 1
_VERSION_FIELD = "contract_version"

Message = TypeVar("Message")
_Reader = Callable[[Any, str], Any]


def encode(message: object) -> dict[str, Any]:
    """Return the message as JSON-ready values, `contract_version` included."""
    if not dataclasses.is_dataclass(message) or isinstance(message, type):
        raise TypeError(f"{message!r} is not a contract message")
    return {_VERSION_FIELD: CONTRACT_VERSION, **_plain(message)}


def decode(kind: type[Message], payload: object) -> Message:
    """Build a message of `kind` from parsed JSON.

    Raises: ContractError for a wrong or missing `contract_version`, an unknown field, a missing required field or a
    value of the wrong type; its `field` is the path of the value.
    """
    fields = _mapping(payload, "")
    version = fields.get(_VERSION_FIELD)
    if version != CONTRACT_VERSION or isinstance(version, bool):
        raise ContractError(
            "wrong_contract_version",
            f"contract_version is {version!r}, this side speaks {CONTRACT_VERSION}; install matching releases",
            field=_VERSION_FIELD,
        )
    rest = {name: value for name, value in fields.items() if name != _VERSION_FIELD}
    message: Message = _reader(cast(Any, kind))(rest, "")
    return message


def dumps(message: object) -> str:
    """Return the message as compact JSON text, the same values as `encode` gives but without copying them."""
    if not dataclasses.is_dataclass(message) or isinstance(message, type):
        raise TypeError(f"{message!r} is not a contract message")
    return _ENCODER.encode({_VERSION_FIELD: CONTRACT_VERSION, **message.__dict__})


def loads(kind: type[Message], text: str | bytes) -> Message:
    """Parse JSON text into a message of `kind`. Raises: ContractError."""
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise ContractError("not_json", f"{kind.__name__} is not valid JSON: {error}") from error
    return decode(kind, payload)


def _fields(value: object) -> dict[str, Any]:
    """Return what the JSON encoder does not know by itself: a nested dataclass or a mapping that is no dict."""
    return dict(value) if isinstance(value, Mapping) else value.__dict__


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_fields)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


@cache
def _reader(kind: Any) -> _Reader:
    """Return the function that checks and converts one value of the annotated type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_reader(kind)
    if origin is tuple:
        return _tuple_reader(_reader(typing.get_args(kind)[0]))
    if origin in (types.UnionType, typing.Union):
        return _union_reader(kind)
    if origin in (dict, Mapping):
        return _mapping_reader(_reader(typing.get_args(kind)[1]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum_reader(kind)
    return _scalar_reader(kind)


def _dataclass_reader(kind: type) -> _Reader:
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def read(value: Any, path: str) -> Any:
        fields = _mapping(value, path)
        for name in fields:
            if name not in readers:
                known = ", ".join(readers)
                message = f"{kind.__name__} has no field {name!r}; it has {known}"
                raise ContractError("unknown_field", message, field=_join(path, name))
        for name in required:
            if name not in fields:
                message = f"{kind.__name__} needs the field {name!r}; the sender left it out"
                raise ContractError("missing_field", message, field=_join(path, name))
        return kind(**{name: readers[name](item, _join(path, name)) for name, item in fields.items()})

    return read


def _tuple_reader(item_reader: _Reader) -> _Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            raise _wrong_type("a list", value, path)
        return tuple(item_reader(item, f"{path}[{index}]") for index, item in enumerate(value))

    return read


def _mapping_reader(item_reader: _Reader) -> _Reader:
    def read(value: Any, path: str) -> Any:
        return {name: item_reader(item, _join(path, name)) for name, item in _mapping(value, path).items()}

    return read


def _union_reader(kind: Any) -> _Reader:
    members = typing.get_args(kind)
    scalars = tuple(member for member in members if member in (str, int, float, bool))
    others = [_reader(member) for member in members if member not in scalars and member is not type(None)]

    def read(value: Any, path: str) -> Any:
        if value is None and type(None) in members:
            return None
        if type(value) in scalars:
            return value
        if others:
            return others[0](value, path)
        raise _wrong_type(" or ".join(getattr(member, "__name__", str(member)) for member in members), value, path)

    return read


def _enum_reader(kind: type[StrEnum]) -> _Reader:
    def read(value: Any, path: str) -> Any:
        if isinstance(value, str) and value in kind.__members__.values():
            return kind(value)
        known = ", ".join(member.value for member in kind)
        raise ContractError("unknown_value", f"{path} is {value!r}; allowed: {known}", field=path)

    return read


def _scalar_reader(kind: Any) -> _Reader:
    def read(value: Any, path: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _wrong_type(kind.__name__, value, path)

    return read


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type("an object", value, path)
    return value


def _wrong_type(wanted: str, value: object, path: str) -> ContractError:
    where = path or "the message"
    return ContractError(
        "wrong_type", f"{where} must be {wanted}, not {type(value).__name__} {value!r:.80}", field=path
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
