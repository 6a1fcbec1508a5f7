"""Rows of desired state (replica sets, deployments, aliases), of observed state, and the kept snapshot."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from serving.contract import AdapterState, Purpose, ReplicaState, Task


class DeploymentState(StrEnum):
    """`wanted` until the pool reports it ready; `failed` stays wanted, the pool may still succeed."""

    WANTED = "wanted"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class SetState(StrEnum):
    """Whether engines of a set should run."""

    WANTED = "wanted"
    STOPPED = "stopped"


class RolloutState(StrEnum):
    """Life of a rollout; the last two are its end."""

    WAITING = "waiting"
    RUNNING = "running"
    PROMOTED = "promoted"
    TAKEN_BACK = "taken_back"


_OPEN = text("state <> 'stopped'")
_UNDER_WAY = text("state IN ('waiting', 'running')")


class ReplicaSet(Base):
    """Interchangeable engines on one base; one wanted set per base, purpose and what its weights carry."""

    __tablename__ = "replica_sets"
    __table_args__ = (
        Index(
            "uq_replica_sets_base_digest_purpose_open",
            "base_digest",
            "purpose",
            "serves_digest",
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
        CheckConstraint("min >= 0 AND max >= min AND max_loras >= 0 AND max_lora_rank > 0", name="sizes"),
        CheckConstraint("context_tokens > 0", name="context_tokens"),
        CheckConstraint("idle_s >= 0", name="idle_s"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    base_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    base_digest: Mapped[str]
    uri: Mapped[str]
    engine: Mapped[str]
    purpose: Mapped[Purpose] = mapped_column(Choice(Purpose))
    task: Mapped[Task] = mapped_column(Choice(Task))
    serves_digest: Mapped[str]
    """The base itself, or the adapter that was merged into these weights."""
    state: Mapped[SetState] = mapped_column(Choice(SetState))
    min: Mapped[Int64]
    max: Mapped[Int64]
    max_loras: Mapped[Int64]
    max_lora_rank: Mapped[Int64]
    context_tokens: Mapped[Int64]
    engine_args: Mapped[Json]
    idle_s: Mapped[Int64]
    """Seconds without a call or a wish after which its engines stop."""
    created_at: Mapped[When]
    idle_since_at: Mapped[datetime | None] = mapped_column(Moment)
    """When the last deployment that somebody asked for ended; engines stay warm for a while after it."""


class Deployment(Base):
    """One version that should answer. `implied`: a base that stands beside its adapters, gone with the last of them."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("ix_deployments_organisation_id_state", "organisation_id", "state"),
        Index("ix_deployments_set_id", "set_id"),
        Index("uq_deployments_version_id_open", "version_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
        CheckConstraint("(state = 'stopped') = (stopped_at IS NOT NULL)", name="stopped"),
        CheckConstraint("state <> 'ready' OR ready_at IS NOT NULL", name="ready"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    set_id: Mapped[str] = mapped_column(ForeignKey("replica_sets.id"))
    public_name: Mapped[str]
    """`org/name@N`; the alias `org/name` moves here once ready."""
    digest: Mapped[str]
    state: Mapped[DeploymentState] = mapped_column(Choice(DeploymentState))
    implied: Mapped[Switch]
    reason_code: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[When]
    ready_at: Mapped[datetime | None] = mapped_column(Moment)
    until_at: Mapped[datetime | None] = mapped_column(Moment)
    """A try-out of a draft ends by itself then, and never moves an alias."""
    stopped_at: Mapped[datetime | None] = mapped_column(Moment)


class Evaluation(Base):
    """Somebody's wish for an engine of its own that answers with one version, out of the callers' sight.

    It ends when released, or at `until_at` when nobody renewed it.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        Index("ix_evaluations_organisation_id", "organisation_id"),
        Index("ix_evaluations_set_id", "set_id"),
        Index(
            "uq_evaluations_version_id_subject_open",
            "version_id",
            "subject",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    set_id: Mapped[str] = mapped_column(ForeignKey("replica_sets.id"))
    subject: Mapped[str]
    """What it is for, such as a run's id: one wish per version and subject."""
    created_at: Mapped[When]
    until_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)


class ServingPolicy(Base):
    """How many engines of a base may run and how long they stay idle, as the operator set it."""

    __tablename__ = "serving_policies"
    __table_args__ = (
        CheckConstraint("min >= 0 AND max >= 1 AND max >= min AND idle_s >= 0", name="sizes"),
        CheckConstraint("max_loras >= 1", name="max_loras"),
        {"sqlite_strict": True},
    )

    base_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    min: Mapped[Int64]
    max: Mapped[Int64]
    idle_s: Mapped[Int64]
    max_loras: Mapped[Int64]
    set_by: Mapped[str]
    set_at: Mapped[When]


class Alias(Base):
    """The version that a public name stands for now, and the one before it."""

    __tablename__ = "aliases"
    __table_args__ = (
        Index("ix_aliases_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    public_name: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    previous_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    moved_at: Mapped[When]


class Rollout(Base):
    """A new version that answers a share of an alias's calls until it is promoted or taken back.

    `waiting` until the version is ready. `stable_version_id` is what the alias stood for when it began.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollouts_organisation_id", "organisation_id"),
        Index(
            "uq_rollouts_public_name_open",
            "public_name",
            unique=True,
            sqlite_where=_UNDER_WAY,
            postgresql_where=_UNDER_WAY,
        ),
        CheckConstraint("percent BETWEEN 1 AND 99", name="percent"),
        CheckConstraint("max_error_percent BETWEEN 0 AND 100 AND max_drop_percent BETWEEN 0 AND 100", name="limits"),
        CheckConstraint("(state IN ('promoted', 'taken_back')) = (ended_at IS NOT NULL)", name="ended"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    public_name: Mapped[str]
    stable_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[RolloutState] = mapped_column(Choice(RolloutState))
    percent: Mapped[Int64]
    max_error_percent: Mapped[Int64]
    max_drop_percent: Mapped[Int64]
    cases: Mapped[Json]
    """What the owner wants asked of both versions: `[{"prompt", "expected"}]`; empty: the run's held-out cases."""
    probe: Mapped[Any | None] = mapped_column(Document)
    reason_code: Mapped[str | None]
    started_by: Mapped[str]
    started_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)


class PoolState(Base):
    """One row per pool: who leads it under which epoch, and how far its desired state has come."""

    __tablename__ = "pool_states"
    __table_args__ = (
        CheckConstraint("epoch >= 0 AND generation >= 0 AND generation_seen >= 0", name="counts"),
        {"sqlite_strict": True},
    )

    name: Mapped[Key]
    controller_id: Mapped[str | None]
    epoch: Mapped[Int64]
    lead_until: Mapped[datetime | None] = mapped_column(Moment)
    generation: Mapped[Int64]
    generation_seen: Mapped[Int64]
    wants: Mapped[Json]


class ObservedReplica(Base):
    """One engine process as the controller last reported it."""

    __tablename__ = "observed_replicas"
    __table_args__ = (
        Index("ix_observed_replicas_set_id", "set_id"),
        CheckConstraint("device_ms >= 0", name="device_ms"),
        {"sqlite_strict": True},
    )

    replica_id: Mapped[Key]
    replica_epoch: Mapped[Int64]
    set_id: Mapped[str]
    slot_id: Mapped[str]
    allocation_epoch: Mapped[Int64]
    url: Mapped[str]
    state: Mapped[ReplicaState] = mapped_column(Choice(ReplicaState))
    reason_code: Mapped[str | None]
    since_at: Mapped[When]
    device_ms: Mapped[Int64]
    observed_at: Mapped[When]


class ObservedAdapter(Base):
    """Where an adapter answers, as the controller last reported it."""

    __tablename__ = "observed_adapters"
    __table_args__ = ({"sqlite_strict": True},)

    digest: Mapped[Key]
    state: Mapped[AdapterState] = mapped_column(Choice(AdapterState))
    ready_on: Mapped[Json]
    reason_code: Mapped[str | None]
    observed_at: Mapped[When]


class SnapshotRow(Base):
    """The gateways' snapshot as last built; `version` grows whenever `content_digest` changes."""

    __tablename__ = "snapshots"
    __table_args__ = ({"sqlite_strict": True},)

    name: Mapped[Key]
    version: Mapped[Int64]
    content_digest: Mapped[str]
    event_seq: Mapped[int] = mapped_column(Whole)
    body: Mapped[Any] = mapped_column(Document)
    built_at: Mapped[When]
