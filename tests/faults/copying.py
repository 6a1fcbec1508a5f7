"""Copies of a database for fault tests: its own backup while it runs, and its rows carried into another one.

It leaves what must hold of a copy to the tests.
"""

import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import Engine, create_engine, insert, make_url, select, text

from hub.database import Sessions
from hub.tables import metadata
from tests.faults.ground import Ground
from tests.hub.money.postgres import _choose_user, find_binaries


def back_up(ground: Ground, url: str, folder: Path) -> str:
    """Return the URL of a restored backup: SQLite's own backup, pg_dump read into a new database."""
    if ground.cluster is None:
        target = folder / "restored.sqlite3"
        with sqlite3.connect(url.removeprefix("sqlite:///")) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return f"sqlite:///{target}"
    restored = ground.cluster.create()
    names = [str(make_url(place).database) for place in (url, restored)]
    dump = _run_tool(ground, "pg_dump", names[0])
    _run_tool(ground, "psql", "-q", "-v", "ON_ERROR_STOP=1", names[1], given=dump)
    return restored


def carry_over(sessions: Sessions, target: str) -> None:
    """Write every row of a database into an empty one with the same tables, and let its numbers go on from there."""
    sink_engine = create_engine(target)
    with sessions.engine.connect() as source, sink_engine.begin() as sink:
        if sink.dialect.name == "postgresql":
            sink.exec_driver_sql("SET session_replication_role = replica")
        else:
            sink.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in source.execute(select(table)).mappings()]
            if rows:
                sink.execute(insert(table), rows)
    _move_numbers(sink_engine)
    sink_engine.dispose()


def _move_numbers(engine: Engine) -> None:
    """PostgreSQL's sequences do not follow rows that came with their numbers; SQLite counts from the rows."""
    if engine.dialect.name != "postgresql":
        return
    owned = text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND (is_identity = 'YES' OR column_default LIKE 'nextval%')"
    )
    with engine.begin() as connection:
        for table, column in connection.execute(owned).all():
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), "  # noqa: S608  names of our tables
                f"coalesce((SELECT max({column}) FROM {table}), 0) + 1, false)"
            )


def _run_tool(ground: Ground, tool: str, *words: str, given: bytes = b"") -> bytes:
    assert ground.cluster is not None
    command = [str(find_binaries() / tool), "-h", str(ground.cluster.home), "-U", "guanmo", *words]
    done = subprocess.run(
        command, check=True, input=given, stdout=subprocess.PIPE, user=_choose_user(), cwd="/", timeout=60
    )
    return done.stdout
