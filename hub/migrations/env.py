"""Runs migrations on the configured database; one connection, one transaction, append-only triggers at the end."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, Integer, inspect
from sqlalchemy.types import TypeDecorator

from hub.append_only import trigger_statements
from hub.columns import Flag, Moment, Whole
from hub.database import open_sessions
from hub.routines import routine_statements
from hub.tables import import_tables, metadata


def same_storage(_context: object, _found: object, _column: object, found: object, wanted: object) -> bool:
    """Say whether a column's stored type changed; number against text is all that both databases know of ours."""
    numeric = isinstance(wanted, Whole | Moment | Flag | Integer)
    return numeric is not isinstance(found, Integer)


def render_type(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write our column types as what the database stores, so that an old migration never depends on newer code."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return "hub.columns.Whole()" if isinstance(item, Whole | Moment | Flag) else "sa.Text()"
    return False


def protect_tables(connection: Connection) -> None:
    """Install the routines and append-only triggers of tables that exist by now; harmless when they are there."""
    existing, dialect = set(inspect(connection).get_table_names()), connection.dialect.name
    for statement in (
        *routine_statements(metadata, dialect, existing),
        *trigger_statements(metadata, dialect, existing),
    ):
        connection.exec_driver_sql(statement)


import_tables()
sessions = open_sessions(context.config.get_main_option("sqlalchemy.url") or "")
with sessions.engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=metadata, compare_type=same_storage, render_item=render_type
    )
    with context.begin_transaction():
        context.run_migrations()
        protect_tables(connection)
    connection.commit()
sessions.close()
