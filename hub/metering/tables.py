"""Usage records, what was rejected of them, how far each gateway has sent, and the engines' witness.

It leaves prices and bills to `hub.orders`.
"""

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, Switch, When, Whole
from hub.database import Base
from serving.contract import EndReason, UsageStatus


class Usage(Base):
    """Tokens of one attempt of one request; the key is the gateway's, so a repeat changes nothing."""

    __tablename__ = "usage_records"
    __table_args__ = (
        Index("ix_usage_records_organisation_id_ended_at", "organisation_id", "ended_at"),
        Index("ix_usage_records_allowance_id", "allowance_id"),
        CheckConstraint("prompt_tokens >= 0 AND completion_tokens >= 0", name="no_negative_tokens"),
        CheckConstraint("cached_tokens >= 0 AND cached_tokens <= prompt_tokens", name="cached_within_prompt"),
        {"sqlite_strict": True},
    )

    request_id: Mapped[Key]
    attempt: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    allowance_id: Mapped[str]
    organisation_id: Mapped[str]
    key_id: Mapped[str]
    cost_centre: Mapped[str | None]
    version_id: Mapped[str]
    digest: Mapped[str]
    price_version_id: Mapped[str]
    replica_id: Mapped[str]
    replica_epoch: Mapped[Int64]
    prompt_tokens: Mapped[Int64]
    cached_tokens: Mapped[Int64]
    completion_tokens: Mapped[Int64]
    started_at: Mapped[When]
    ended_at: Mapped[When]
    end_reason: Mapped[EndReason] = mapped_column(Choice(EndReason))
    status: Mapped[UsageStatus] = mapped_column(Choice(UsageStatus))
    disputed: Mapped[Switch]
    gateway_id: Mapped[str]
    gateway_epoch: Mapped[Int64]
    seq: Mapped[Int64]
    received_at: Mapped[When]


class RejectedUsage(Base):
    """A record that will never be billed, kept whole with its reason for the operator."""

    __tablename__ = "rejected_usage"
    __table_args__ = ({"sqlite_strict": True},)

    gateway_id: Mapped[Key]
    gateway_epoch: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    code: Mapped[str]
    record: Mapped[Json]
    received_at: Mapped[When]


class GatewayStream(Base):
    """How far one gateway's numbered records have arrived."""

    __tablename__ = "gateway_streams"
    __table_args__ = (CheckConstraint("through_seq >= 0", name="through_seq"), {"sqlite_strict": True})

    gateway_id: Mapped[Key]
    gateway_epoch: Mapped[Int64]
    through_seq: Mapped[Int64]
    updated_at: Mapped[When]


class WatchedOutcome(Base):
    """How calls of one version ended while somebody watches it; the row is there only that long."""

    __tablename__ = "watched_outcomes"
    __table_args__ = (CheckConstraint("calls >= failures AND failures >= 0", name="counts"), {"sqlite_strict": True})

    version_id: Mapped[Key]
    calls: Mapped[Int64]
    failures: Mapped[Int64]
    since_at: Mapped[When]


class EngineWitness(Base):
    """Tokens of one request as counted inside the engine; `allowance_id` is empty for warm-ups and proofs."""

    __tablename__ = "engine_witness"
    __table_args__ = (
        Index("ix_engine_witness_request_id_attempt", "request_id", "attempt"),
        Index("ix_engine_witness_allowance_id", "allowance_id"),
        Index("ix_engine_witness_received_at", "received_at"),
        {"sqlite_strict": True},
    )

    replica_id: Mapped[Key]
    replica_epoch: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    request_id: Mapped[str]
    attempt: Mapped[Int64]
    prompt_tokens: Mapped[Int64]
    completion_tokens: Mapped[Int64]
    told_prompt_tokens: Mapped[Int64]
    told_cached_tokens: Mapped[Int64]
    allowance_id: Mapped[str | None]
    key_id: Mapped[str | None]
    version_id: Mapped[str | None]
    cut: Mapped[Switch]
    received_at: Mapped[When]


class EngineReadingRow(Base):
    """An engine's own counters when it last stood still, beside the sum of its rows up to the same request."""

    __tablename__ = "engine_readings"
    __table_args__ = ({"sqlite_strict": True},)

    replica_id: Mapped[Key]
    replica_epoch: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    through_seq: Mapped[Int64]
    prompt_tokens: Mapped[Int64]
    completion_tokens: Mapped[Int64]
    witnessed_prompt_tokens: Mapped[Int64]
    witnessed_completion_tokens: Mapped[Int64]
    read_at: Mapped[When]


protect_rows(Usage)
protect_rows(RejectedUsage)
protect_rows(EngineWitness)
