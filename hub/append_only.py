"""Makes tables append-only in the database itself: triggers refuse UPDATE, DELETE and TRUNCATE on both dialects.

It leaves the choice of tables to the rooms. `create_all` installs the triggers; a migration runs `trigger_statements`.
"""

from collections.abc import Collection
from typing import cast

from sqlalchemy import DDL, MetaData, Table, event
from sqlalchemy.orm import DeclarativeBase

_MARK = "append_only"
_FUNCTION = """CREATE OR REPLACE FUNCTION guanmo_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $guanmo$
BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $guanmo$"""


def protect_rows(mapped: type[DeclarativeBase], *, mutable: Collection[str] = ()) -> None:
    """Let rows of a table be added only; columns in `mutable` may still change, rows may never go."""
    table = cast(Table, mapped.__table__)
    table.info[_MARK] = tuple(mutable)
    for dialect in ("sqlite", "postgresql"):
        for statement in _table_statements(table, dialect):
            trigger = DDL(statement)  # type: ignore[no-untyped-call]
            event.listen(table, "after_create", trigger.execute_if(dialect=dialect))


def trigger_statements(metadata: MetaData, dialect: str, existing: Collection[str]) -> list[str]:
    """Return the DDL for the tables in `existing` that a migration runs at its end; running it twice is harmless."""
    return [
        statement
        for table in metadata.sorted_tables
        if _MARK in table.info and table.name in existing
        for statement in _table_statements(table, dialect)
    ]


def _table_statements(table: Table, dialect: str) -> list[str]:
    mutable = table.info[_MARK]
    fixed = ", ".join(column.name for column in table.columns if column.name not in mutable)
    update = f"UPDATE OF {fixed}" if mutable else "UPDATE"
    if dialect == "sqlite":
        return [_sqlite_trigger(table.name, "update", update), _sqlite_trigger(table.name, "delete", "DELETE")]
    return [
        _FUNCTION,
        _postgresql_trigger(table.name, "update", f"BEFORE {update}", "ROW"),
        _postgresql_trigger(table.name, "delete", "BEFORE DELETE", "ROW"),
        _postgresql_trigger(table.name, "truncate", "BEFORE TRUNCATE", "STATEMENT"),
    ]


def _sqlite_trigger(table: str, verb: str, action: str) -> str:
    return (
        f"CREATE TRIGGER IF NOT EXISTS {table}_refuse_{verb} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )


def _postgresql_trigger(table: str, verb: str, action: str, level: str) -> str:
    return (
        f"CREATE OR REPLACE TRIGGER {table}_refuse_{verb} {action} ON {table} "
        f"FOR EACH {level} EXECUTE FUNCTION guanmo_refuse_change()"
    )
