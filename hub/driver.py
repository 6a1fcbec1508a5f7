"""Runs statements on the database driver itself, where SQLAlchemy's cursor would cost more than the statement.

It leaves transactions to `hub.database` and what is said to the rooms: the ledger's postings, batches of usage.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError


def execute(connection: Connection, statement: str, parameters: Any, *, many: bool = False) -> Any:
    """Run a statement within the connection's transaction and return the driver's cursor.

    Raises:
        DBAPIError: what SQLAlchemy would have raised.
    """
    return _run(connection, statement, parameters, many=many)


def control(connection: Connection, command: str) -> None:
    """Set a savepoint of the connection's transaction, or go back to one, without a cursor where that is cheaper.

    Raises:
        DBAPIError: what SQLAlchemy would have raised.
    """
    if connection.dialect.name == "sqlite":
        _run(connection, command, ())
        return
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.control(command)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _name_error(connection, command, (), error) from error


def begin(connection: Connection) -> None:
    """Let the connection's transaction begin in the database now, not with its first statement; on SQLite it has.

    Raises:
        DBAPIError: what SQLAlchemy would have raised.
    """
    if connection.dialect.name == "sqlite":
        return
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.begin()
    except connection.dialect.loaded_dbapi.Error as error:
        raise _name_error(connection, "BEGIN", (), error) from error


def insert_whole(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> bool:
    """Insert rows on SQLite and say so; False: a constraint or a trigger refused one, and none is there.

    Raises:
        DBAPIError: anything but a refusal.
    """
    if len(rows) == 1:
        return _is_taken(connection, statement, rows[0])  # A statement undoes itself.
    _run(connection, "SAVEPOINT whole", ())
    taken = _is_taken(connection, statement, rows, many=True)
    if not taken:
        _run(connection, "ROLLBACK TO whole", ())
    # Not after any other failure: a full disk may have ended the transaction, and the savepoint with it.
    _run(connection, "RELEASE whole", ())
    return taken


def call_routine(
    connection: Connection, name: str, values: Sequence[str | int | None], *, statement: str | None = None
) -> str | None:
    """Call a routine of PostgreSQL within the connection's transaction and return its one value as text.

    A `statement` of `$1` marks is prepared under the name instead, and its first value is returned.

    Raises:
        DBAPIError: what SQLAlchemy would have raised.
    """
    driver: Any = connection.connection.dbapi_connection
    statement = statement or f"SELECT {name}({', '.join(f'${number}' for number in range(1, len(values) + 1))})"
    encoded = [None if value is None else str(value).encode() for value in values]
    try:
        found = driver.call(name, statement, encoded)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _name_error(connection, statement, values, error) from error
    return None if found is None else found.decode()


def _run(connection: Connection, statement: str, parameters: Any, *, many: bool = False) -> Any:
    driver: Any = connection.connection.dbapi_connection
    try:
        return driver.executemany(statement, parameters) if many else driver.execute(statement, parameters)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _name_error(connection, statement, parameters, error) from error


def _name_error(connection: Connection, statement: str, parameters: Any, error: Any) -> BaseException:
    base = connection.dialect.loaded_dbapi.Error
    named: BaseException = DBAPIError.instance(statement, parameters, error, base, dialect=connection.dialect)
    return named


def _is_taken(connection: Connection, statement: str, parameters: Any, *, many: bool = False) -> bool:
    try:
        _run(connection, statement, parameters, many=many)
    except IntegrityError:
        return False
    return True


def select_listed(
    connection: Connection, query: str, lists: Mapping[str, Sequence[str]], *, end: str = ""
) -> list[Any]:
    """Return the rows of a query in which `column {name}` stands for: the column's value is in the list `name`.

    `end` is what only PostgreSQL is told, such as a lock.
    """
    parameters = {name: json.dumps(values) for name, values in lists.items()}
    if connection.dialect.name == "sqlite":
        statement = query.format(**{name: f"IN (SELECT value FROM json_each(:{name}))" for name in lists})  # noqa: S608
    else:
        arrays = {name: f"= ANY(ARRAY(SELECT json_array_elements_text(%({name})s)))" for name in lists}
        statement = query.format(**arrays) + end
    return list(execute(connection, statement, parameters).fetchall())


def insert_rows(connection: Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of stored values (numbers, texts, None), which all have the columns of the first; one statement.

    `table` and the columns' names are the caller's own words, never a user's.
    """
    if not rows:
        return
    names = ", ".join(rows[0])
    if connection.dialect.name == "sqlite":
        places = ", ".join(f":{name}" for name in rows[0])
        execute(connection, f"INSERT INTO {table} ({names}) VALUES ({places})", rows, many=True)  # noqa: S608
        return
    statement = f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, %(rows)s)"  # noqa: S608
    execute(connection, statement, {"rows": json.dumps(rows)})
