"""The database: declarative base, engine, and the two kinds of session, read and write.

It leaves tables to the rooms and migrations to `hub.migrations`. SQLite writers begin IMMEDIATE because a deferred
read-then-write fails at once under a second writer (measured: 1,588 of 1,800 failed, IMMEDIATE 0).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Condition
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, MetaData, Text, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session

from hub.combining import Lines, Turn
from hub.driver import begin, control, execute
from hub.errors import GuanmoError
from hub.spare import RESTED_SINCE_S, SpareConnection

Answer = TypeVar("Answer")
Steps = list[Callable[[], None]]
"""What settles turns once their transaction is committed."""
BUSY_TIMEOUT_MS = 10_000
IDLE_S = 2
"""A pooled connection idle for longer is asked whether it lives; asking each time costs as much as a statement."""


class Base(DeclarativeBase):
    """Root of all tables; names of constraints follow one convention on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text}  # noqa: RUF012  SQLAlchemy reads it as a class attribute


class News:
    """Wakes threads of this process that wait for somebody to write; what another process writes wakes nobody."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._writes = 0

    def tell(self) -> None:
        """Say that something was written."""
        with self._changed:
            self._writes += 1
            self._changed.notify_all()

    def count(self) -> int:
        """Return how many writes were told, to be passed to `wait`."""
        return self._writes

    def wait(self, seen: int, timeout_s: float) -> None:
        """Return once more than `seen` writes were told, or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self._writes != seen, timeout_s)


class Sessions:
    """Opens sessions. `write()` commits on leaving, rolls back on any error; `read()` never writes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.news = News()
        self._lines = Lines(self._write_turns)
        self._spare = SpareConnection(engine, rest_s=IDLE_S)
        self._one_writer = engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session whose transaction refuses to write."""
        with self.engine.connect().execution_options(guanmo_mode="read") as connection, _open(connection) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session in a writing transaction (BEGIN IMMEDIATE on SQLite); keep it under 10 ms."""
        connection = self._spare.take()
        try:
            with _open(connection) as session:
                transaction = connection.get_transaction()
                yield session
                try:
                    # A session that never mapped a row has no transaction of its own; beginning one is half its cost.
                    if session.in_transaction():
                        session.commit()
                    if transaction is not None and transaction.is_active:
                        transaction.commit()
                except DBAPIError:
                    # SQLAlchemy takes a transaction whose commit failed for ended and gives the connection to the next
                    # as it is; SQLite's may still be inside it.
                    connection.invalidate()
                    raise
        except BaseException:
            connection.close()
            raise
        self._spare.keep(connection)
        self.news.tell()

    def combine(self, name: str, work: Callable[[Session], Answer]) -> Answer:
        """Do work in a writing transaction, which it may share with other threads' work in the line of that name.

        Where nobody waits it is as under `write()`. Who is taken along has a savepoint, or is a `Joint`, which needs
        none: a refusal (`GuanmoError`) undoes its own work only; after any other error nothing is written, and each
        is done again alone, so work must bear being done twice. It returns values, not rows: its session is closed.
        Where the commit fails, all are told: whether it was made is not known, and the same ids sent again count
        once. On SQLite, with its one writer, all lines are one.
        """
        answer: Answer = self._lines.run("" if self._one_writer else name, work)
        return answer

    def close(self) -> None:
        """Close every pooled connection."""
        self._spare.drop()
        self.engine.dispose()

    def _write_turns(self, first: Turn, parts: Iterator[list[Turn]]) -> None:
        taken, settle = [first], Steps()
        try:
            with self.write() as session:
                if first.joint is not None:
                    begin(find_connection(session))  # Who comes during this round trip, which is needed anyway, joins.
                taken += next(parts)[1:]
                settle += _attempt_first(session, taken)
                for part in parts:
                    taken += part
                    settle += _attempt_part(find_connection(session), part)
        except SpoiltError:
            settle = [partial(self._write_alone, turn) for turn in taken]
        except Exception as error:  # noqa: BLE001  raised again in the threads whose work it is
            settle = [partial(turn.fail, error) for turn in taken]
        for step in settle:
            step()

    def _write_alone(self, turn: Turn) -> None:
        try:
            with self.write() as session:
                answer = turn.attempt(session)
        except Exception as error:  # noqa: BLE001  raised again in the thread whose work it is
            turn.fail(error)
        else:
            turn.answer(answer)


class SpoiltError(Exception):
    """One piece of work has ended the transaction that it shared."""


def _attempt_first(session: Session, part: list[Turn]) -> Steps:
    if len(part) > 1:
        return _attempt_part(find_connection(session), part)
    answer = part[0].attempt(session)
    session.flush()  # what fails here is its own fault alone
    return [partial(part[0].answer, answer)]


def _attempt_part(connection: Connection, part: list[Turn]) -> Steps:
    """Do work that goes together within a shared transaction, and return what settles it once that is committed.

    Raises:
        SpoiltError: a piece of it failed by something other than a refusal.
    """
    answers = _join(connection, part)
    if answers is None:
        return [_attempt_turn(connection, turn) for turn in part]
    return [partial(turn.answer, answer) for turn, answer in zip(part, answers, strict=True)]


def _join(connection: Connection, part: list[Turn]) -> Sequence[Any] | None:
    """Do the work of several at once and return their answers; None: nothing is done yet."""
    first, *others = [turn.joint for turn in part]
    if first is None or not others:
        return None
    try:
        return first.join(connection, others)
    except Exception as error:
        raise SpoiltError from error


def _attempt_turn(connection: Connection, turn: Turn) -> Callable[[], None]:
    whole = connection.get_transaction()
    if turn.joint is None:
        control(connection, "SAVEPOINT part")
    # `rollback_only`: its commit flushes and leaves the transaction to us.
    session = Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
    try:
        answer = turn.attempt(session)
        if session.in_transaction():
            session.commit()
        settle = partial(turn.answer, answer)
    except GuanmoError as error:
        settle = partial(turn.fail, error)
        if turn.joint is None and whole is not None and whole.is_active:
            control(connection, "ROLLBACK TO part")
    except Exception as error:
        raise SpoiltError from error
    finally:
        if session.in_transaction() or session.identity_map:
            session.close()
    if whole is None or not whole.is_active:
        raise SpoiltError
    return settle


@contextmanager
def _open(connection: Connection) -> Iterator[Session]:
    connection.begin()
    session = Session(connection, expire_on_commit=False, join_transaction_mode="control_fully")
    try:
        yield session
    finally:
        if session.in_transaction() or session.identity_map:
            session.close()
        session.bind = None  # the connection may be another's by the time a late use asks for it


def find_connection(session: Session) -> Connection:
    """Return the connection of a session, without beginning the session's own transaction where it has none yet.

    Where it has one, it is asked: a savepoint of it is set only when its connection is.
    """
    bound = session.bind
    return bound if isinstance(bound, Connection) and not session.in_transaction() else session.connection()


def open_sessions(url: str) -> Sessions:
    """Return sessions on a database URL, `sqlite:///path` or `postgresql+psycopg://…`."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
        event.listen(engine, "checkin", _note_idle)
        event.listen(engine, "checkout", _ask_if_idle)
    return Sessions(engine)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: we say BEGIN ourselves, below.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        # Four times the default: a page of a busy account is copied into the file a quarter as often.
        "wal_autocheckpoint=4000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("guanmo_mode") == "read"
    if reading is not connection.info.get("reads_only", False):
        execute(connection, f"PRAGMA query_only={'ON' if reading else 'OFF'}", ())
        connection.info["reads_only"] = reading
    execute(connection, "BEGIN" if reading else "BEGIN IMMEDIATE", ())


def _connect_postgresql(_dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
    from hub.postgresql import DirectConnection

    return DirectConnection.connect(*arguments, **named)


def _begin_postgresql(connection: Connection) -> None:
    reading = connection.get_execution_options().get("guanmo_mode") == "read"
    driver: Any = connection.connection.driver_connection
    if driver.read_only is not reading:
        driver.read_only = reading


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since_s"] = record.info.pop(RESTED_SINCE_S, None) or monotonic()


def _ask_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
    since_s = record.info.get("idle_since_s")
    if since_s is None or monotonic() - since_s < IDLE_S:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except connection.Error as error:
        raise DisconnectionError("the server closed an idle connection") from error
