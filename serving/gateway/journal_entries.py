"""The entries of the gateway's journal.

What they mean together is in `journal_state`, how they reach the disk in `journal_file`.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.contract import AllowanceGrant, AllowanceRequest, SnapshotPrice, UsageRecord


@dataclass(frozen=True)
class Drawn:
    """A slice is about to be asked for; written first so that a lost answer can be asked for again."""

    request: AllowanceRequest


@dataclass(frozen=True)
class Granted:
    """The answer to a draw, with the prices that its requests will be billed by."""

    idempotency_key: str
    grant: AllowanceGrant
    prices: tuple[SnapshotPrice, ...]


@dataclass(frozen=True)
class Refused:
    """The draw was refused; nothing is held."""

    idempotency_key: str


@dataclass(frozen=True)
class Reserved:
    """One attempt is about to be sent to an engine."""

    request_id: str
    attempt: int
    allowance_id: str
    organisation_id: str
    key_id: str
    cost_centre: str | None
    version_id: str
    digest: str
    price_version_id: str
    replica_id: str
    replica_epoch: int
    started_at: int


@dataclass(frozen=True)
class Progressed:
    """Running usage of an attempt, as the engine last said it."""

    request_id: str
    attempt: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Cancelled:
    """The engine refused the attempt before doing any work."""

    request_id: str
    attempt: int


@dataclass(frozen=True)
class Settled:
    """The attempt ended; `cost_ufen` is what it takes from its allowance."""

    seq: int
    cost_ufen: int
    record: UsageRecord


@dataclass(frozen=True)
class Acked:
    """The hub has every record up to here."""

    through_seq: int


@dataclass(frozen=True)
class Closed:
    """The hub took the slice back."""

    allowance_id: str


@dataclass(frozen=True)
class Opened:
    """Compaction: an allowance and what it has spent so far."""

    allowance_id: str
    spent_ufen: int
    last_seq: int
    prices: tuple[SnapshotPrice, ...]


@dataclass(frozen=True)
class Counted:
    """Compaction: the counters."""

    next_seq: int
    acked_seq: int


Entry = Drawn | Granted | Refused | Reserved | Progressed | Cancelled | Settled | Acked | Closed | Opened | Counted
ENTRY_KINDS: dict[str, type[Entry]] = {
    kind.__name__.lower(): kind
    for kind in (Drawn, Granted, Refused, Reserved, Progressed, Cancelled, Settled, Acked, Closed, Opened, Counted)
}
