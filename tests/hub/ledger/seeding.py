"""A filled market in both databases, opened without the guards, so that a test can break what they prevent.

It leaves which row breaks which invariant to the tests.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.orm import Session

from hub.database import open_sessions
from hub.orders import service as orders
from hub.tables import metadata
from tests.hub.money.market import Market

HOUR_MS = 3_600_000
USAGE = (20_000, 0, 20_000)


def fill_market(market: Market, now: datetime) -> None:
    """Award, deposit, settle an order, refund another, hold a third, and bill hosted calls."""
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    market.fund("factory", 50_000, "bank-1")
    ends = []
    for key in ("settled", "refunded", "held"):
        quote = market.quote()
        with market.sessions.write() as session:
            ends.append(orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=now))
    with market.sessions.write() as session:
        half = {"device_ms": HOUR_MS // 2, "trained_tokens": 700_001}
        orders.settle_order(session, ends[0].id, metered=half, now=now)
        orders.refund_order(session, ends[1].id, fault="provider", reason_code="test", now=now)
    slice_ = market.draw("k1")
    allowance_id = str(getattr(slice_, "allowance_id", ""))
    market.send(market.record(allowance_id, "req_1", USAGE), market.record(allowance_id, "req_2", USAGE))
    market.close(allowance_id, spent_ufen=1, through_seq=2)
    market.settle()


@contextmanager
def open_unguarded(source: Path, url: str) -> Iterator[Engine]:
    """Yield an engine on a copy of the SQLite file `source` at `url`: no foreign key, CHECK or trigger in the way."""
    if url.startswith("sqlite"):
        shutil.copy(source, url.removeprefix("sqlite:///"))
        engine = create_engine(url)
        event.listen(engine, "connect", _relax_sqlite)
    else:
        engine = create_engine(url)
        with engine.begin() as connection:
            metadata.create_all(connection)
            _copy_rows(source, connection)
            _relax_postgresql(connection)
    try:
        yield engine
    finally:
        engine.dispose()


def insert_row(session: Session, table: str, **values: Any) -> None:
    """Insert a row with 0 and '' wherever nothing is given and something is needed."""
    columns = inspect(session.connection()).get_columns(table)
    row = {
        column["name"]: "" if "TEXT" in str(column["type"]).upper() else 0
        for column in columns
        if not column["nullable"] and column["name"] != "seq"
    }
    row |= values
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), row)  # noqa: S608


def _relax_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    # The guards that I5 looks for must stay for it; the test of I5 drops one of these itself.
    connection.executescript(";".join(_mute_trigger(connection, name) for (name,) in found))
    uniques = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE UNIQUE%'"
    for (name,) in connection.execute(uniques).fetchall():
        connection.execute(f"DROP INDEX {name}")
    connection.commit()


def _mute_trigger(connection: Any, name: str) -> str:
    query = "SELECT tbl_name, sql FROM sqlite_master WHERE name = ?"
    _, statement = connection.execute(query, (name,)).fetchone()
    return f"DROP TRIGGER {name}; {statement.replace(' BEGIN SELECT', ' WHEN 0 BEGIN SELECT')}"


def _relax_postgresql(connection: Any) -> None:
    query = text(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint "
        "WHERE contype IN ('c', 'u', 'f') AND connamespace = 'public'::regnamespace ORDER BY contype DESC"
    )
    for table, name in connection.execute(query).all():
        connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT IF EXISTS "{name}" CASCADE'))
    uniques = text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE 'uq_%'")
    for (name,) in connection.execute(uniques).all():
        connection.execute(text(f'DROP INDEX "{name}"'))


def _copy_rows(source: Path, connection: Any) -> None:
    connection.execute(text("SET session_replication_role = replica"))
    opened = open_sessions(f"sqlite:///{source}")
    with opened.read() as session:
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in session.execute(select(table)).mappings()]
            if rows:
                connection.execute(insert(table), rows)
    opened.close()
    connection.execute(text("SET session_replication_role = origin"))
