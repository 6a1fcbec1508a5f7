"""The SQL of posting, one form for each database: lock the accounts, read what is known, write a plan.

PostgreSQL gets each step as one statement, because round trips under a lock are what limits a ledger; SQLite has no
round trips. It leaves every decision to `hub.ledger.planning`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from hub.driver import execute, insert_rows, select_listed
from hub.ledger.books import Books, LockedAccount, Plan, Stored
from hub.ledger.tables import AccountKind, TransferKind

SIDES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted", "version")
TRANSFER = (
    "id",
    "group_id",
    "position",
    "kind",
    "debit_id",
    "credit_id",
    "amount_fen",
    "pending_id",
    "reverses_id",
    "code",
    "business_type",
    "business_id",
    "rule_version_id",
    "price_version_id",
    "actor_id",
    "event_at",
    "recorded_at",
    "fingerprint",
)
_ENTRY = ("account_id", "account_version", "transfer_id", "leg", "amount_fen", *SIDES[:4], "recorded_at")
_LEASE = ("hold_id", "expires_at", "renewed_at")
_LOCK = (
    f"SELECT id, kind, limited, credit_limited, {', '.join(SIDES)}, "  # noqa: S608  names are constants above
    "(SELECT min(month) FROM ledger_closed_months WHERE month {months}) "
    "FROM ledger_accounts WHERE id {ids} ORDER BY id"
)
_READ = (
    "SELECT t.id, t.group_id, t.kind, t.debit_id, t.credit_id, t.amount_fen, t.pending_id, t.reverses_id, "
    "t.fingerprint, l.expires_at FROM ledger_transfers t LEFT JOIN ledger_hold_leases l ON l.hold_id = t.id "
    "WHERE t.id {ids} OR t.group_id {groups}"
)


def lock_accounts(
    connection: Connection, account_ids: Iterable[str], months: Iterable[str]
) -> tuple[dict[str, LockedAccount], str | None]:
    """Lock accounts in id order and return those that exist, and the first closed month among those given."""
    wanted = {"ids": sorted(account_ids), "months": sorted(months)}
    # On SQLite BEGIN IMMEDIATE is the lock: there is one writer.
    rows = select_listed(connection, _LOCK, wanted, end=' COLLATE "C" FOR NO KEY UPDATE')
    accounts = {
        row[0]: LockedAccount(row[0], AccountKind(row[1]), bool(row[2]), bool(row[3]), *row[4:9]) for row in rows
    }
    return accounts, rows[0][9] if rows else None


def read_sides(connection: Connection, account_ids: Iterable[str]) -> list[Any]:
    """Return (id, sides, version) of accounts as they stand within the transaction."""
    query = f"SELECT id, {', '.join(SIDES)} FROM ledger_accounts WHERE id {{ids}}"  # noqa: S608  constants above
    return select_listed(connection, query, {"ids": list(account_ids)})


def read_stored(
    connection: Connection,
    books: Books,
    *,
    ids: Sequence[str],
    groups: Sequence[str],
    holds: Sequence[str],
    reversed_ids: Sequence[str],
) -> None:
    """Take the transfers of these ids and groups, and whatever ended or reversed them, into the books."""
    query, wanted = _READ, {"ids": [*ids, *holds, *reversed_ids], "groups": list(groups)}
    if holds:
        query, wanted["holds"] = query + " OR t.pending_id {holds}", list(holds)
    if reversed_ids:
        query, wanted["reversed"] = query + " OR t.reverses_id {reversed}", list(reversed_ids)
    for row in select_listed(connection, query, wanted):
        books.remember(Stored(row[0], row[1], TransferKind(row[2]), *row[3:]))


def write_plan(connection: Connection, plan: Plan) -> None:
    """Insert transfers, entries and leases, move the accounts' sides, drop the leases of ended holds."""
    accounts = [
        {"id": account.id, **{side: getattr(account, side) for side in SIDES}} for account in plan.accounts.values()
    ]
    write = _write_sqlite if connection.dialect.name == "sqlite" else _write_postgresql
    write(connection, plan, accounts)


def _write_sqlite(connection: Connection, plan: Plan, accounts: list[dict[str, Any]]) -> None:
    for table, _, rows in _inserts(plan):
        insert_rows(connection, table, rows)
    moved = ", ".join(f"{side} = :{side}" for side in SIDES)
    execute(connection, f"UPDATE ledger_accounts SET {moved} WHERE id = :id", accounts, many=True)  # noqa: S608
    if plan.ended:
        ended = [{"hold_id": key} for key in plan.ended]
        execute(connection, "DELETE FROM ledger_hold_leases WHERE hold_id = :hold_id", ended, many=True)


def _write_postgresql(connection: Connection, plan: Plan, accounts: list[dict[str, Any]]) -> None:
    steps, parameters = [], {"accounts": json.dumps(accounts), "moved": json.dumps(list(plan.accounts))}
    for table, columns, rows in _inserts(plan):
        names = ", ".join(columns)
        steps.append(
            f"{table}_in AS (INSERT INTO {table} ({names}) "  # noqa: S608  names are constants above
            f"SELECT {names} FROM json_populate_recordset(NULL::{table}, %({table})s::json))"
        )
        parameters[table] = json.dumps(rows)
    if plan.ended:
        steps.append(
            "ended AS (DELETE FROM ledger_hold_leases WHERE hold_id IN (SELECT json_array_elements_text(%(ended)s)))"
        )
        parameters["ended"] = json.dumps(plan.ended)
    moved = ", ".join(f"{side} = s.{side}" for side in SIDES)
    write = (
        f"WITH {', '.join(steps)} UPDATE ledger_accounts a SET {moved} "  # noqa: S608  names are constants above
        "FROM json_populate_recordset(NULL::ledger_accounts, %(accounts)s::json) s WHERE a.id = s.id "
        # Said twice, because a join with a function alone makes the planner read every account.
        "AND a.id = ANY(ARRAY(SELECT json_array_elements_text(%(moved)s)))"
    )
    execute(connection, write, parameters)


def _inserts(plan: Plan) -> list[tuple[str, tuple[str, ...], list[dict[str, Any]]]]:
    wanted = [("ledger_transfers", TRANSFER, plan.transfers), ("ledger_entries", _ENTRY, plan.entries)]
    return [*wanted, ("ledger_hold_leases", _LEASE, plan.leases)] if plan.leases else wanted
