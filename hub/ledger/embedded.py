"""Posts simple groups on SQLite: sides are read once, moved here, and written once however often a batch moves them.

The keys of the transfers recognise a repeat. Like the routines of PostgreSQL it says no, with the books as they were,
where anything is in the way; why, `hub.ledger.planning` knows.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from hub.clock import to_us
from hub.driver import execute, insert_whole, select_listed
from hub.ledger.books import Group
from hub.ledger.routines import ENTRY, TRANSFER
from hub.ledger.rows import Row, list_rows
from hub.ledger.rules import lease_end
from hub.ledger.tables import TransferKind

_DEBITS_PENDING, _DEBITS, _CREDITS_PENDING, _CREDITS, _VERSION, _LIMITED, _CREDIT_LIMITED, _ID = range(8)
_READ = (
    "SELECT debits_pending, debits_posted, credits_pending, credits_posted, version, limited, credit_limited, id "
    "FROM ledger_accounts WHERE id {ids} "
    "AND NOT EXISTS (SELECT 1 FROM ledger_closed_months WHERE month {months})"
)
_READ_TWO = _READ.format(ids="IN (?, ?)", months="= ?")
_MOVE = (
    "UPDATE ledger_accounts SET debits_pending = ?, debits_posted = ?, credits_pending = ?, credits_posted = ?, "
    "version = ? WHERE id = ?"
)
_INSERT_LEASE = "INSERT INTO ledger_hold_leases (hold_id, expires_at, renewed_at) VALUES (?, ?, ?)"


def _insert(table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * (columns.count(',') + 1))})"  # noqa: S608  constants


_INSERT_TRANSFER, _INSERT_ENTRY = _insert("ledger_transfers", TRANSFER), _insert("ledger_entries", ENTRY)


def post_embedded(connection: Connection, groups: Sequence[Group]) -> bool:
    """Post groups without ends of holds and reversals and say so; False: nothing was posted."""
    accounts = _read_open(connection, groups)
    if accounts is None:
        return False
    rows = [row for group in groups for row in list_rows(group)]
    entries = _move(accounts, rows)
    if entries is None or not insert_whole(connection, _INSERT_TRANSFER, rows):
        return False
    execute(connection, _INSERT_ENTRY, entries, many=True)
    execute(connection, _MOVE, [(*account[:_LIMITED], account[_ID]) for account in accounts.values()], many=True)
    leases = [lease for group in groups for lease in _list_leases(group)]
    if leases:
        execute(connection, _INSERT_LEASE, leases, many=True)
    return True


def _list_leases(group: Group) -> list[tuple[Any, ...]]:
    now = to_us(group.posted.now)
    return [(one.id, lease_end(one, now), now) for one in group.movements if one.lease_s is not None]


def _read_open(connection: Connection, groups: Sequence[Group]) -> dict[str, list[Any]] | None:
    """Return the accounts by id as they stand; None: one does not exist, or a month is closed."""
    ids, months = set(), set()
    for group in groups:
        months.add(group.posted.month)
        for one in group.movements:
            ids.add(one.debit_id)
            ids.add(one.credit_id)
    if len(ids) == 2 and len(months) == 1:
        found: Collection[Any] = execute(connection, _READ_TWO, (*ids, *months)).fetchall()
    else:
        found = select_listed(connection, _READ, {"ids": list(ids), "months": list(months)})
    return {account[_ID]: list(account) for account in found} if len(found) == len(ids) else None


def _move(accounts: dict[str, list[Any]], rows: Sequence[Row]) -> list[tuple[Any, ...]] | None:
    """Move the accounts by each transfer and return the entries; None: a limit is in the way."""
    entries: list[tuple[Any, ...]] = []
    for row in rows:
        debit, credit, amount, now = accounts[row[4]], accounts[row[5]], row[6], row[14]
        held = amount if row[3] == TransferKind.PENDING else 0
        debit[_DEBITS_PENDING] += held
        debit[_DEBITS] += amount - held
        credit[_CREDITS_PENDING] += held
        credit[_CREDITS] += amount - held
        if debit[_LIMITED] and debit[_DEBITS_PENDING] + debit[_DEBITS] > debit[_CREDITS]:
            return None
        if credit[_CREDIT_LIMITED] and credit[_CREDITS_PENDING] + credit[_CREDITS] > credit[_DEBITS]:
            return None
        debit[_VERSION] += 1
        credit[_VERSION] += 1
        entries.append((row[4], debit[_VERSION], row[0], "debit", amount, *debit[:_VERSION], now))
        entries.append((row[5], credit[_VERSION], row[0], "credit", amount, *credit[:_VERSION], now))
    return entries
