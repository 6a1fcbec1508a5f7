"""Posts transfers and holds on PostgreSQL with one statement that does all or nothing; the way of nearly every posting.

Round trips under a lock are what limits a hot account, so locking, checking and writing travel together. The
statement says yes only where nothing is in the way; anything else (a repeat, a limit, a closed month, a missing
account) it leaves untouched to `hub.ledger.planning`, which knows the reason.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from hub.clock import to_us
from hub.driver import execute
from hub.ledger import statements
from hub.ledger.books import Group
from hub.ledger.periods import month_key
from hub.ledger.planning import build_lease, build_row
from hub.ledger.rules import Movement
from hub.ledger.tables import Leg, TransferKind

_TRANSFER = ", ".join(statements.TRANSFER)
_POST = f"""
WITH legs AS (
  SELECT * FROM json_to_recordset(%(legs)s) AS leg(
    n integer, account_id text, transfer_id text, leg text, amount_fen bigint, recorded_at bigint,
    dp bigint, d bigint, cp bigint, c bigint)),
locked AS MATERIALIZED (
  SELECT * FROM ledger_accounts WHERE id = ANY(ARRAY(SELECT json_array_elements_text(%(accounts)s)))
  ORDER BY id FOR NO KEY UPDATE),
moved AS MATERIALIZED (
  SELECT l.*, a.limited, a.credit_limited, a.version + row_number() OVER run AS version,
    CAST(a.debits_pending + sum(l.dp) OVER run AS bigint) AS debits_pending,
    CAST(a.debits_posted + sum(l.d) OVER run AS bigint) AS debits_posted,
    CAST(a.credits_pending + sum(l.cp) OVER run AS bigint) AS credits_pending,
    CAST(a.credits_posted + sum(l.c) OVER run AS bigint) AS credits_posted
  FROM legs l JOIN locked a ON a.id = l.account_id
  WINDOW run AS (PARTITION BY l.account_id ORDER BY l.n)),
free AS (
  SELECT (SELECT count(*) FROM moved) = %(leg_count)s
  AND NOT EXISTS (SELECT 1 FROM moved WHERE (limited = 1 AND debits_pending + debits_posted > credits_posted)
    OR (credit_limited = 1 AND credits_pending + credits_posted > debits_posted))
  AND NOT EXISTS (SELECT 1 FROM ledger_closed_months
    WHERE month = ANY(ARRAY(SELECT json_array_elements_text(%(months)s))))
  -- Counted, because for EXISTS the planner takes a whole scan and hopes for an early hit; here there is none.
  AND 0 = (SELECT count(*) FROM ledger_transfers
    WHERE id = ANY(ARRAY(SELECT json_array_elements_text(%(ids)s))))
  AND 0 = (SELECT count(*) FROM ledger_transfers
    WHERE group_id = ANY(ARRAY(SELECT json_array_elements_text(%(groups)s))) AND position = 0) AS yes),
written AS (
  INSERT INTO ledger_transfers ({_TRANSFER})
  SELECT {_TRANSFER} FROM json_populate_recordset(NULL::ledger_transfers, %(transfers)s)
  WHERE (SELECT yes FROM free) ON CONFLICT DO NOTHING RETURNING id),
whole AS (
  -- What raced us in since this statement began shows as a conflict: all of it, and nothing happens here; a part of
  -- it, and the division ends the transaction.
  SELECT CASE count(*) WHEN %(transfer_count)s THEN TRUE WHEN 0 THEN FALSE ELSE 1 / (count(*) - count(*)) > 0 END AS yes
  FROM written),
leased AS (
  INSERT INTO ledger_hold_leases (hold_id, expires_at, renewed_at)
  SELECT hold_id, expires_at, renewed_at FROM json_populate_recordset(NULL::ledger_hold_leases, %(leases)s)
  WHERE (SELECT yes FROM whole)),
entered AS (
  INSERT INTO ledger_entries (account_id, account_version, transfer_id, leg, amount_fen, debits_pending,
    debits_posted, credits_pending, credits_posted, recorded_at)
  SELECT account_id, version, transfer_id, leg, amount_fen, debits_pending, debits_posted, credits_pending,
    credits_posted, recorded_at FROM moved WHERE (SELECT yes FROM whole)),
settled AS (
  UPDATE ledger_accounts a SET debits_pending = m.debits_pending, debits_posted = m.debits_posted,
    credits_pending = m.credits_pending, credits_posted = m.credits_posted, version = m.version
  FROM (SELECT DISTINCT ON (account_id) * FROM moved ORDER BY account_id, version DESC) m
  WHERE a.id = m.account_id AND a.id = ANY(ARRAY(SELECT json_array_elements_text(%(accounts)s)))
    AND (SELECT yes FROM whole)
  RETURNING a.id, a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted, a.version)
SELECT * FROM settled"""  # noqa: S608  names are constants


def can_post_at_once(connection: Connection, groups: Sequence[Group]) -> bool:
    """Say whether the groups are of the simple kind: nothing ends or reverses, and no id comes twice."""
    movements = [movement for group in groups for movement in group.movements]
    simple = all(
        movement.kind in (TransferKind.SINGLE, TransferKind.PENDING) and movement.reverses_id is None
        for movement in movements
    )
    distinct = len({movement.id for movement in movements}) == len(movements)
    distinct = distinct and len({group.id for group in groups}) == len(groups)
    return connection.dialect.name == "postgresql" and simple and distinct and bool(movements)


def post_at_once(connection: Connection, groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Post the groups and return their rows and the accounts' new (id, sides, version); two empty lists: not posted."""
    transfers: list[dict[str, Any]] = []
    legs: list[dict[str, Any]] = []
    leases: list[dict[str, Any]] = []
    for group in groups:
        moment = to_us(group.posted.now)
        for position, movement in enumerate(group.movements):
            transfers.append(build_row(movement, group, position=position, moment=moment))
            legs += _build_legs(movement, moment, len(legs))
            if movement.lease_s is not None:
                leases.append(build_lease(movement.id, movement.lease_s, moment))
    parameters: dict[str, Any] = {
        "accounts": sorted({leg["account_id"] for leg in legs}),
        "months": sorted({month_key(group.posted.event_at or group.posted.now) for group in groups}),
        "ids": [row["id"] for row in transfers],
        "groups": [group.id for group in groups],
        "transfers": transfers,
        "legs": legs,
        "leases": leases,
    }
    encoded = {name: json.dumps(value) for name, value in parameters.items()}
    counts = {"leg_count": len(legs), "transfer_count": len(transfers)}
    moved = execute(connection, _POST, encoded | counts).fetchall()
    return (transfers, moved) if moved else ([], [])


def _build_legs(movement: Movement, moment: int, first: int) -> list[dict[str, Any]]:
    held = movement.kind is TransferKind.PENDING
    pending, posted = (movement.amount_fen, 0) if held else (0, movement.amount_fen)
    shared = {"transfer_id": movement.id, "amount_fen": movement.amount_fen, "recorded_at": moment}
    debit = {"account_id": movement.debit_id, "leg": Leg.DEBIT, "dp": pending, "d": posted, "cp": 0, "c": 0}
    credit = {"account_id": movement.credit_id, "leg": Leg.CREDIT, "dp": 0, "d": 0, "cp": pending, "c": posted}
    return [{**shared, **debit, "n": first}, {**shared, **credit, "n": first + 1}]
