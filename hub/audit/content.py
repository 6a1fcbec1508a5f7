"""What a leaf says: the fields of the source row, fixed here by name so that a later column changes no old leaf.

It leaves the annexes of events to `annexes` and hashing to `tree`.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from hub.audit.tables import Outbox
from hub.clock import to_us
from hub.columns import write_json

EVENT_FIELDS = (
    "seq",
    "id",
    "topic",
    "subject",
    "organisation_id",
    "actor_id",
    "occurred_at",
    "schema_version",
    "payload",
)
TRANSFER_FIELDS = (
    "seq",
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
ACCOUNT_FIELDS = ("id", "organisation_id", "kind", "subject", "period_key", "currency", "limited", "credit_limited")


def plain(row: object, fields: Sequence[str]) -> dict[str, Any]:
    """Return named fields of a row as JSON values; times as µs UTC."""
    return {name: _plain_value(getattr(row, name)) for name in fields}


def digest_row(row: dict[str, Any], annex: Any) -> str:
    """Return the sha256 of a row and its annex in canonical JSON."""
    return hashlib.sha256(write_json({"row": row, "annex": annex}).encode()).hexdigest()


def write_leaf(outbox: Outbox, source_seq: int, *, at: datetime, digest: str) -> bytes:
    """Return the bytes that a leaf hashes."""
    return write_json({"outbox": str(outbox), "seq": source_seq, "at": to_us(at), "digest": digest}).encode()


def _plain_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_us(value)
    return str(value) if isinstance(value, StrEnum) else value
