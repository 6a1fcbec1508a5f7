"""Gives a table what each database has of its own: routines, and CHECKs that call them.

PostgreSQL's are installed before the table, whose CHECKs may call them; SQLite's after it, because they are views and
triggers on it. It leaves the routines themselves to the rooms. `create_all` installs them, and so does every migration
by `routine_statements`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

from sqlalchemy import CheckConstraint, Connection, MetaData, Table, event
from sqlalchemy.orm import DeclarativeBase

_MARK = "routines"


def install_routines(mapped: type[DeclarativeBase], by_dialect: Mapping[str, Sequence[str]]) -> None:
    """Let statements that create or replace routines run when the table is created; harmless when run again."""
    table = cast(Table, mapped.__table__)
    table.info[_MARK] = dict(by_dialect)

    def install(connection: Connection, dialect: str) -> None:
        if connection.dialect.name == dialect:
            for statement in by_dialect.get(dialect, ()):
                connection.exec_driver_sql(statement)

    event.listen(table, "before_create", lambda _table, connection, **_: install(connection, "postgresql"))
    event.listen(table, "after_create", lambda _table, connection, **_: install(connection, "sqlite"))


def routine_statements(metadata: MetaData, dialect: str, existing: Collection[str]) -> list[str]:
    """Return the DDL for the tables in `existing` that a migration runs at its end; running it twice is harmless."""
    tables = [table for table in metadata.sorted_tables if table.name in existing]
    return [statement for table in tables for statement in table.info.get(_MARK, {}).get(dialect, ())]


def only_on(dialect: str, **checks: str) -> list[CheckConstraint]:
    """Return CHECKs, by name, that only one database has."""
    return [
        CheckConstraint(text, name=name, info={"only_on": dialect}).ddl_if(dialect=dialect)
        for name, text in checks.items()
    ]
