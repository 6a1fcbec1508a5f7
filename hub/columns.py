"""Column types that SQLite STRICT and PostgreSQL both accept, and the shorthand the tables use.

It leaves meaning to the tables; nothing here knows a noun.
"""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from hub.clock import from_us, to_us

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Whole(TypeDecorator[int]):
    """A 64-bit signed integer: INTEGER on SQLite, BIGINT on PostgreSQL."""

    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())


class Moment(TypeDecorator[datetime]):
    """An aware UTC time kept as whole microseconds since 1970."""

    impl = Whole
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_us(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_us(value)


class Flag(TypeDecorator[bool]):
    """A truth value kept as 0 or 1."""

    impl = Whole
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)


class Document(TypeDecorator[Any]):
    """A JSON value kept as canonical text (sorted keys, no spaces, no NaN)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else write_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Choice(TypeDecorator[Any]):
    """One member of a StrEnum kept as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else self.members(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self.members(value)


def write_json(value: Any) -> str:
    """Return canonical JSON: equal values give equal bytes."""
    return _CANONICAL.encode(value)


Key = Annotated[str, mapped_column(Text, primary_key=True)]
"""A primary key such as `run_…`, made by `hub.ids.new_id`."""
String = Annotated[str, mapped_column(Text)]
Int64 = Annotated[int, mapped_column(Whole)]
When = Annotated[datetime, mapped_column(Moment)]
Switch = Annotated[bool, mapped_column(Flag)]
Json = Annotated[Any, mapped_column(Document)]
