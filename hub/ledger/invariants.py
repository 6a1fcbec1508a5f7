"""The invariants of the money, I1 to I24: one sentence and one query each; a query returns what breaks it.

The queries stand in `book_invariants` (the ledger by itself) and `bill_invariants` (other rooms' tables, read as SQL
text). It leaves what a finding means for a firm to the officer who reads it. Nothing here writes.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from hub.errors import NotFoundError
from hub.ledger import bill_invariants, book_invariants
from hub.ledger.law import Invariant

INVARIANTS: tuple[Invariant, ...] = tuple(
    sorted(book_invariants.INVARIANTS + bill_invariants.INVARIANTS, key=lambda found: int(found.id[1:]))
)
BOOKS = tuple(found.id for found in book_invariants.INVARIANTS)
"""The ids that need the ledger's own tables only."""

HISTORY = (
    "audit_records",
    "bill_versions",
    "call_corrections",
    "charge_parts",
    "charges",
    "claim_lines",
    "events",
    "ledger_accounts",
    "ledger_closed_months",
    "ledger_entries",
    "ledger_transfers",
    "price_versions",
    "redemption_claw_backs",
    "quote_covers",
    "quote_lines",
    "quotes",
    "rental_meters",
    "rule_versions",
    "usage_records",
    "voucher_claw_backs",
    "voucher_grants",
    "voucher_reviews",
)
"""Tables whose rows the database itself keeps from changing (or all but their state columns)."""

EXAMPLES = 5
_SAME = {
    "pending": "CASE t.kind WHEN 'pending' THEN t.amount_fen WHEN 'single' THEN 0 ELSE -h.amount_fen END",
    "posted": "CASE WHEN t.kind IN ('single', 'post') THEN t.amount_fen ELSE 0 END",
}
_DIALECTS = {
    "sqlite": {
        "cap_fen": "json_extract(r.body, '$.per_firm_cap_fen')",
        "event_month": "strftime('%Y-%m', t.event_at / 1000000 + 28800, 'unixepoch')",
        "unprotected": (
            "SELECT name FROM sqlite_master s WHERE type = 'table' AND name IN ({history}) AND 2 > "
            "(SELECT count(*) FROM sqlite_master g WHERE g.type = 'trigger' AND g.tbl_name = s.name "
            "AND g.name LIKE '%_refuse_%')"
        ),
        "inexact": (
            "SELECT l.name || '.' || c.name FROM pragma_table_list l, pragma_table_xinfo(l.name) c "
            "WHERE l.type = 'table' AND l.schema = 'main' AND substr(l.name, 1, 7) <> 'sqlite_' "
            "AND l.name <> 'alembic_version' AND (l.strict = 0 OR c.type NOT IN ('INTEGER', 'TEXT'))"
        ),
    },
    "postgresql": {
        "cap_fen": "CAST(CAST(r.body AS json) ->> 'per_firm_cap_fen' AS bigint)",
        "event_month": "to_char(to_timestamp(t.event_at / 1000000) AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM')",
        "unprotected": (
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relname IN ({history}) AND 3 > "
            "(SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgenabled <> 'D' "
            "AND g.tgname LIKE '%_refuse_%')"
        ),
        "inexact": (
            "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND data_type IN ('real', 'double precision', 'numeric', 'money')"
        ),
    },
}


@dataclass(frozen=True)
class Finding:
    """How often an invariant is broken, and the first few rows that break it."""

    invariant: Invariant
    broken: int
    examples: list[str]


def check_invariants(session: Session, ids: Collection[str] | None = None) -> list[Finding]:
    """Run all invariants, or those named, and return one finding for each, sound ones with `broken` 0.

    Raises:
        NotFoundError: an id that is no invariant.
    """
    for key in sorted(set(ids or ()) - {found.id for found in INVARIANTS}):
        raise NotFoundError.of("invariant", key)
    return [_check(session, found) for found in INVARIANTS if ids is None or found.id in ids]


def _check(session: Session, invariant: Invariant) -> Finding:
    fitting = _SAME | _DIALECTS[session.get_bind().dialect.name]
    fitting["unprotected"] = fitting["unprotected"].format(history=", ".join(f"'{name}'" for name in HISTORY))
    rows = session.execute(text(invariant.query.format(**fitting))).all()
    return Finding(invariant, len(rows), [" ".join(str(value) for value in row) for row in rows[:EXAMPLES]])
