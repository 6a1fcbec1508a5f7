"""Gives a table what only PostgreSQL has: routines installed before it, and CHECKs that call them.

It leaves the routines themselves to the rooms. `create_all` installs them; every migration runs `routine_statements`.
"""

from collections.abc import Collection, Sequence
from typing import Any, cast

from sqlalchemy import CheckConstraint, Connection, MetaData, Table, event
from sqlalchemy.orm import DeclarativeBase

_MARK = "routines"


def install_routines(mapped: type[DeclarativeBase], statements: Sequence[str]) -> None:
    """Let statements that create or replace routines run on PostgreSQL before the table is created."""
    table = cast(Table, mapped.__table__)
    table.info[_MARK] = tuple(statements)

    def install(_table: Table, connection: Connection, **_more: Any) -> None:
        if connection.dialect.name == "postgresql":
            for statement in statements:
                connection.exec_driver_sql(statement)

    event.listen(table, "before_create", install)


def routine_statements(metadata: MetaData, dialect: str, existing: Collection[str]) -> list[str]:
    """Return the DDL for the tables in `existing` that a migration runs at its end; running it twice is harmless."""
    tables = [table for table in metadata.sorted_tables if table.name in existing and dialect == "postgresql"]
    return [statement for table in tables for statement in table.info.get(_MARK, ())]


def only_on(dialect: str, **checks: str) -> list[CheckConstraint]:
    """Return CHECKs, by name, that only one database has."""
    return [
        CheckConstraint(text, name=name, info={"only_on": dialect}).ddl_if(dialect=dialect)
        for name, text in checks.items()
    ]
