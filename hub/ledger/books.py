"""What posting works on: groups as they are asked for, the books under lock, and the plan of what to write.

It leaves the rules to `hub.ledger.planning` and SQL to `hub.ledger.statements`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from hub.ledger.periods import month_key
from hub.ledger.rules import Movement
from hub.ledger.tables import AccountKind, TransferKind


@dataclass(frozen=True)
class Posted:
    """Who posts a group and for which business: `business_type` names a noun, `business_id` its row.

    `event_at` is when the business happened, where that is not `now`; its month must be open.
    """

    business_type: str
    business_id: str
    actor_id: str
    now: datetime
    event_at: datetime | None = None

    @property
    def month(self) -> str:
        """The month that it counts in, which must be open."""
        return month_key(self.event_at or self.now)


class Group(msgspec.Struct, frozen=True, gc=False):
    """Movements that are posted all or none, under one id of their maker."""

    id: str
    movements: Sequence[Movement]
    posted: Posted


@dataclass(slots=True)
class LockedAccount:
    """An account under lock; its sides and version run ahead of the database while a plan is made."""

    id: str
    kind: AccountKind
    limited: bool
    credit_limited: bool
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    version: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A transfer that is in the books, as far as a plan needs it; `expires_us` is its lease, if it has one."""

    id: str
    group_id: str
    kind: TransferKind
    debit_id: str
    credit_id: str
    amount_fen: int
    pending_id: str | None
    reverses_id: str | None
    fingerprint: str
    expires_us: int | None


@dataclass
class Books:
    """The part of the books that some groups touch."""

    accounts: dict[str, LockedAccount]
    stored: dict[str, Stored] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    ended: dict[str, Stored] = field(default_factory=dict)
    reversed: dict[str, Stored] = field(default_factory=dict)

    def remember(self, transfer: Stored) -> None:
        """Take a transfer into the books under its id, its group and what it ends."""
        self.stored[transfer.id] = transfer
        self.groups.setdefault(transfer.group_id, []).append(transfer.id)
        if transfer.pending_id is not None:
            self.ended[transfer.pending_id] = transfer
        if transfer.reverses_id is not None:
            self.reversed[transfer.reverses_id] = transfer


@dataclass
class Plan:
    """Rows to write, by column; `accounts` are those whose sides moved."""

    transfers: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    leases: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    accounts: dict[str, LockedAccount] = field(default_factory=dict)
