"""Says in coded errors why the database could not do its work: no room, too busy, away.

It leaves trying again to whoever asked: nothing of the transaction stayed, and the same ids may be sent again.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError

from hub.errors import GuanmoError


class StorageFullError(GuanmoError):
    """The database's disk has no room left."""

    code = "storage_full"
    status = 507


class DatabaseBusyError(GuanmoError):
    """Others held what was needed for longer than a request waits."""

    code = "database_busy"
    status = 503


class DatabaseAwayError(GuanmoError):
    """The database server does not answer, or ended the connection."""

    code = "database_away"
    status = 503


_FULL = ("53100",)
_BUSY = ("40001", "40P01", "55P03", "53300")
_AWAY = ("57P01", "57P02", "57P03", "08000", "08001", "08003", "08004", "08006")
"""SQLSTATE of PostgreSQL: https://www.postgresql.org/docs/15/errcodes-appendix.html"""


def explain_outage(error: BaseException) -> GuanmoError | None:
    """Return the coded refusal for a failure of the database that passes by itself or by making room; else None."""
    if not isinstance(error, DBAPIError):
        return None
    kind = _classify(error)
    if kind is StorageFullError:
        return StorageFullError(
            "The database has no room left and nothing was changed; free disk space, then send the same again.",
            "数据库磁盘空间已满，未作任何更改；请释放空间后重新发送。",
        )
    if kind is DatabaseBusyError:
        return DatabaseBusyError(
            "The database is busy and nothing was changed; send the same again in a few seconds.",
            "数据库繁忙，未作任何更改；请几秒后重新发送。",
        )
    if kind is DatabaseAwayError:
        return DatabaseAwayError(
            "The database does not answer; whether the change was made is not known. Send the same again with the "
            "same id or key in a few seconds: it counts once.",
            "数据库无应答，更改是否完成尚不清楚；请几秒后以相同编号重新发送，只会计一次。",
        )
    return None


def _classify(error: DBAPIError) -> type[GuanmoError] | None:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary code: https://www.sqlite.org/rescode.html
        primary = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return {sqlite3.SQLITE_FULL: StorageFullError, sqlite3.SQLITE_BUSY: DatabaseBusyError}.get(primary)
    state = getattr(cause, "sqlstate", None)
    if state in _FULL:
        return StorageFullError
    if state in _BUSY:
        return DatabaseBusyError
    return DatabaseAwayError if state in _AWAY or error.connection_invalidated or _never_reached(cause) else None


def _never_reached(cause: BaseException | None) -> bool:
    """PostgreSQL gives no state where the server could not be asked."""
    return type(cause).__name__ == "OperationalError" and getattr(cause, "sqlstate", None) is None
