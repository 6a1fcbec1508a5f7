"""Messages about money slices (allowances) and token usage between gateway and hub.

Amounts are integer µfen (10⁻⁶ fen), times integer µs UTC. Pricing rules live in `prices`, ledger postings in the hub.

HTTP (JSON, `contract_version` 1, bearer token of the gateway):
    POST {hub}/internal/v1/allowances        AllowanceRequest -> 200 AllowanceGrant | 402 AllowanceRefusal
    POST {hub}/internal/v1/allowances/close  AllowanceClose -> 200 or 204
    POST {hub}/internal/v1/usage             UsageBatch -> UsageReply
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EndReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    CLIENT_GONE = "client_gone"
    UPSTREAM_DIED = "upstream_died"
    UPSTREAM_REFUSED = "upstream_refused"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    GATEWAY_RESTART = "gateway_restart"
    GATEWAY_LOST = "gateway_lost"


class UsageStatus(StrEnum):
    """Whether the caller got the whole answer, part of it or none."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True)
class AllowanceRequest:
    """A gateway asks for a slice; repeating an `idempotency_key` returns the first answer."""

    gateway_id: str
    gateway_epoch: int
    idempotency_key: str
    organisation_id: str
    budget_id: str | None
    price_version_id: str
    want_ufen: int


@dataclass(frozen=True)
class AllowanceGrant:
    """A slice, possibly smaller than wanted; `expires_at` stops new reservations only."""

    allowance_id: str
    amount_ufen: int
    expires_at: int


@dataclass(frozen=True)
class AllowanceRefusal:
    """No money: the limit by name, who set it, and what is used and left of it in µfen."""

    code: str
    limit: str
    set_by: str
    used: int
    left: int
    resets_at: int | None


@dataclass(frozen=True)
class AllowanceClose:
    """The slice is finished; every usage record up to `through_seq` was accepted by the hub before."""

    allowance_id: str
    spent_ufen: int
    through_seq: int


@dataclass(frozen=True)
class UsageRecord:
    """Tokens of one attempt; key is (request_id, attempt). `cached_tokens` are part of `prompt_tokens`."""

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
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    started_at: int
    ended_at: int
    end_reason: EndReason
    status: UsageStatus
    disputed: bool


@dataclass(frozen=True)
class UsageBatch:
    """At most 500 records; record i has sequence number `first_seq + i`."""

    gateway_id: str
    gateway_epoch: int
    first_seq: int
    records: tuple[UsageRecord, ...]


@dataclass(frozen=True)
class RejectedUsage:
    """A record that the hub will never accept, with its reason."""

    seq: int
    code: str


@dataclass(frozen=True)
class UsageReply:
    """Everything up to `through_seq` is stored (or listed as rejected) and need not be sent again."""

    through_seq: int
    rejected: tuple[RejectedUsage, ...] = ()
