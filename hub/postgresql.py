"""Connections to PostgreSQL that can also be spoken to without a cursor, for the few statements that run all the time.

A prepared call through libpq itself costs a quarter of the processor time of a cursor's. It leaves pooling and
transactions to SQLAlchemy and `hub.database`.
"""

from collections.abc import Sequence
from typing import Any, cast

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.rows import TupleRow

_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class DirectConnection(psycopg.Connection[TupleRow]):
    """A driver's connection with `call`; begins, commits and fails as any other."""

    def call(self, name: str, statement: str, values: Sequence[bytes | None]) -> bytes | None:
        """Run a statement of `$1` marks, prepared once under its name, and return the one value of its one row.

        Raises:
            psycopg.Error: as a cursor would.
        """
        self.begin()
        prepared = self._list_prepared()
        key = name.encode()
        if name not in prepared:
            self._check(self.pgconn.prepare(key, statement.encode()))
            prepared.add(name)
        result = self.pgconn.exec_prepared(key, cast(Any, values))
        self._check(result)
        return result.get_value(0, 0) if result.ntuples else None

    def control(self, command: str) -> None:
        """Run a command without values, such as `SAVEPOINT`, within the transaction.

        Raises:
            psycopg.Error: as a cursor would.
        """
        self.begin()
        self._run(command.encode())

    def commit(self) -> None:
        """Commit what is under way."""
        if self.pgconn.transaction_status == pq.TransactionStatus.INTRANS:
            self._run(b"COMMIT")
        else:
            super().commit()

    def rollback(self) -> None:
        """Undo what is under way, if anything is."""
        if self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            super().rollback()

    def begin(self) -> None:
        """Begin a transaction, unless one is under way; any call does so by itself.

        Raises:
            psycopg.Error: as a cursor would.
        """
        if self.pgconn.transaction_status == pq.TransactionStatus.IDLE and not self.autocommit:
            self._run(b"BEGIN READ ONLY" if self.read_only else b"BEGIN")

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        # The driver drops every prepared statement (no name) after a rollback, ours with its own.
        if name is None:
            self._list_prepared().clear()
        yield from super()._deallocate(name)

    def _list_prepared(self) -> set[str]:
        found: set[str] | None = self.__dict__.get("prepared_names")
        if found is None:
            found = self.__dict__["prepared_names"] = set()
        return found

    def _run(self, command: bytes) -> None:
        self._check(self.pgconn.exec_(command))

    def _check(self, result: Any) -> None:
        if result.status in _FINE:
            return
        if self.pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError(self.pgconn.get_error_message())  # as a cursor names a lost server
        raise error_from_result(result, self.info.encoding)
