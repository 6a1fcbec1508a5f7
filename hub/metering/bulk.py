"""Stores a batch of usage records in one statement, each once: a key that is there already changes nothing.

It leaves which records may be stored to `service`. The key of the row is the whole check against repeats, in the same
transaction: a check kept anywhere else loses or doubles records when one of the two writes fails.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table, TypeDecorator
from sqlalchemy.orm import Session

from hub.clock import from_us
from hub.columns import Choice
from hub.metering.tables import Usage
from serving import contract

RECORD_FIELDS = tuple(contract.UsageRecord.__dataclass_fields__)
TIMES = ("started_at", "ended_at")


def list_values(
    record: contract.UsageRecord, *, gateway_id: str, gateway_epoch: int, seq: int, now: datetime
) -> dict[str, Any]:
    """Return a record's row as column values."""
    values = {name: getattr(record, name) for name in RECORD_FIELDS}
    for name in TIMES:
        values[name] = from_us(values[name])
    return {**values, "gateway_id": gateway_id, "gateway_epoch": gateway_epoch, "seq": seq, "received_at": now}


def store_usage(session: Session, rows: Sequence[dict[str, Any]]) -> int:
    """Store rows whose key is not there yet and return how many that were; one statement, in the order of the keys."""
    if not rows:
        return 0
    # In order, so that two batches with keys in common wait for each other instead of for ever.
    ordered = sorted(rows, key=lambda row: (row["request_id"], row["attempt"]))
    connection = session.connection()
    table = _table()
    encoders = [(column.name, column.type.bind_processor(connection.dialect)) for column in table.columns]
    raw = [[encode(row[name]) if encode else row[name] for name, encode in encoders] for row in ordered]
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        # Names and marks come from the table, never from a record.
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
        return connection.exec_driver_sql(statement, [tuple(values) for values in raw]).rowcount
    arrays = ", ".join(f"%s::{_array_of(column.type)}" for column in table.columns)
    statement = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"  # noqa: S608
    return connection.exec_driver_sql(statement, tuple(list(values) for values in zip(*raw, strict=True))).rowcount


def _table() -> Table:
    table = Usage.__table__
    if not isinstance(table, Table):
        raise TypeError("usage records are not a table")
    return table


def _array_of(kind: Any) -> str:
    """Return the PostgreSQL array of a column: everything that is not text is kept as a whole number."""
    return "bigint[]" if isinstance(kind, TypeDecorator) and not isinstance(kind, Choice) else "text[]"
