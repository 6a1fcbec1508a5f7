"""Stores a batch of usage records in one statement, each once: a key that is there already changes nothing.

It leaves which records may be stored to `service`. The key of the row is the whole check against repeats, in the same
transaction: a check kept anywhere else loses or doubles records when one of the two writes fails.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, Table, TypeDecorator
from sqlalchemy.orm import Session

from hub.columns import Choice
from hub.driver import call_routine, execute
from hub.metering.tables import Usage
from serving import contract

RECORD_FIELDS = tuple(contract.UsageRecord.__dataclass_fields__)
STREAM_FIELDS = ("gateway_id", "gateway_epoch", "seq", "received_at")
COLUMNS = RECORD_FIELDS + STREAM_FIELDS
RECORD, NOTHING = "\x1e", "\x1f"
"""Between two values of a column, and for none; SQL reads lists of texts so at a tenth of the price of JSON."""
Row = tuple[Any, ...]
"""A record's stored values in the order of `COLUMNS`; the first two are its key."""
_read_record: Callable[[contract.UsageRecord], Row] = attrgetter(*RECORD_FIELDS)


def list_values(record: contract.UsageRecord, *, gateway_id: str, gateway_epoch: int, seq: int, now_us: int) -> Row:
    """Return a record's row as the database stores it."""
    return (*_read_record(record), gateway_id, gateway_epoch, seq, now_us)


def store_usage(session: Session, rows: Sequence[Row]) -> int:
    """Store rows whose key is not there yet and return how many that were; one statement, in the order of the keys."""
    if not rows:
        return 0
    # In order, so that two batches with keys in common wait for each other instead of for ever.
    ordered = sorted(rows, key=itemgetter(0, 1))
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(COLUMNS))
        # Names come from the contract, never from a record.
        statement = f"INSERT INTO usage_records ({', '.join(COLUMNS)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
        return int(execute(connection, statement, ordered, many=True).rowcount)
    return _store_on_postgresql(connection, ordered)


def _store_on_postgresql(connection: Connection, ordered: Sequence[Row]) -> int:
    columns = []
    for (name, numeric), values in zip(_list_kinds(), zip(*ordered, strict=True), strict=True):
        if numeric:
            numbers = map(int, values) if isinstance(values[0], bool) else values
            columns.append(f"{{{','.join(map(str, numbers))}}}")
            continue
        text = RECORD.join([NOTHING if value is None else value for value in values])
        if text.count(RECORD) != len(ordered) - 1 or text.count(NOTHING) != values.count(None):
            raise ValueError(f"a value of {name} has a control character in it")
        columns.append(text)
    found = call_routine(connection, "usage_store", columns, statement=_write_statement())
    return int(found or 0)


@cache
def _list_kinds() -> tuple[tuple[str, bool], ...]:
    """Return each column and whether it is kept as a whole number; everything else is text."""
    table = Usage.__table__
    if not isinstance(table, Table) or {column.name for column in table.columns} != set(COLUMNS):
        raise TypeError("usage records are not what the contract says")
    kinds = {column.name: column.type for column in table.columns}
    return tuple(
        (name, isinstance(kinds[name], TypeDecorator) and not isinstance(kinds[name], Choice)) for name in COLUMNS
    )


@cache
def _write_statement() -> str:
    lists = ", ".join(
        f"${number}::bigint[]" if numeric else f"string_to_array(${number}, E'\\x1e', E'\\x1f')"
        for number, (_, numeric) in enumerate(_list_kinds(), 1)
    )
    names = ", ".join(COLUMNS)
    return (
        f"WITH stored AS (INSERT INTO usage_records ({names}) SELECT * FROM unnest({lists}) "  # noqa: S608  as above
        "ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) FROM stored"
    )
