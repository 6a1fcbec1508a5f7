"""Rows of runs and of their attempts. Loss curves and rows of data stay in files."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from finetune.spec import Fault
from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from hub.tuning.states import AttemptState, RunState


class Run(Base):
    """One fine-tune. `state_version` grows with each transition; the times keep accept → first step."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_organisation_id_state", "organisation_id", "state"),
        Index("ix_runs_state", "state"),
        CheckConstraint("state_version > 0 AND attempt >= 0 AND fence >= 0", name="counts"),
        CheckConstraint("(plan IS NULL) = (plan_digest IS NULL)", name="plan"),
        CheckConstraint("(accepted_at IS NULL) = (order_id IS NULL)", name="accepted"),
        CheckConstraint(
            "(finished_at IS NULL) = (state NOT IN ("
            "'invalid','expired','cancelled','succeeded','early_stopped','held','failed'))",
            name="finished",
        ),
        UniqueConstraint("organisation_id", "request_key"),
        CheckConstraint("(request_key IS NULL) = (request_digest IS NULL)", name="request"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    created_by: Mapped[str]
    base_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    base_public_name: Mapped[str]
    dataset_version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    model_name: Mapped[str]
    recipe: Mapped[Json]
    """The caller's wishes; the resolved recipe with reasons stands in the plan."""
    seed: Mapped[Int64]
    deploy_when_done: Mapped[Switch]
    request_key: Mapped[str | None]
    """The client's Idempotency-Key; the same key with another `request_digest` is refused."""
    request_digest: Mapped[str | None]
    asked: Mapped[Any | None] = mapped_column(Document)
    """What an OpenAI client sent (suffix, method, metadata), echoed to it; empty for runs of the pages."""
    terms: Mapped[Any | None] = mapped_column(Document)
    """{offer_id, max_fen}: on these the worker accepts the quote by itself; empty where a person does."""
    rerun_of: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    cost_centre: Mapped[str | None]
    state: Mapped[RunState] = mapped_column(Choice(RunState))
    state_version: Mapped[Int64]
    reason_code: Mapped[str | None]
    fault: Mapped[Fault | None] = mapped_column(Choice(Fault))
    message: Mapped[str | None]
    plan: Mapped[Any | None] = mapped_column(Document)
    plan_digest: Mapped[str | None]
    quote_id: Mapped[str | None]
    quoted_device_ms: Mapped[int | None] = mapped_column(Whole)
    offer_id: Mapped[str | None] = mapped_column(ForeignKey("offers.id"))
    order_id: Mapped[str | None]
    rental_id: Mapped[str | None] = mapped_column(ForeignKey("rentals.id"))
    attempt: Mapped[Int64]
    fence: Mapped[Int64]
    device_ms: Mapped[int | None] = mapped_column(Whole)
    trained_tokens: Mapped[int | None] = mapped_column(Whole)
    metrics: Mapped[Any | None] = mapped_column(Document)
    gate: Mapped[Any | None] = mapped_column(Document)
    artifact_digest: Mapped[str | None]
    candidate_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    """What was trained, a draft until the gate or a person publishes it as `version_id`."""
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    mlflow_run_id: Mapped[str | None]
    device_batch_tokens: Mapped[int | None] = mapped_column(Whole)
    """After the device ran out of memory: most tokens on it at once; a larger step is added up from parts."""
    rate_percent: Mapped[int | None] = mapped_column(Whole)
    """After a loss that was no number: steps take so much of the plan's learning rate."""
    cancel_requested_at: Mapped[datetime | None] = mapped_column(Moment)
    pause_requested_at: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[When]
    planned_at: Mapped[datetime | None] = mapped_column(Moment)
    quote_valid_until: Mapped[datetime | None] = mapped_column(Moment)
    accepted_at: Mapped[datetime | None] = mapped_column(Moment)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    first_step_at: Mapped[datetime | None] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class RunAttempt(Base):
    """One execution of the trainer; `fence` stands in everything that it writes."""

    __tablename__ = "run_attempts"
    __table_args__ = (
        UniqueConstraint("run_id", "attempt"),
        Index("ix_run_attempts_organisation_id_run_id", "organisation_id", "run_id"),
        CheckConstraint("attempt > 0 AND fence > 0", name="counts"),
        CheckConstraint("(state = 'active') = (ended_at IS NULL)", name="ended"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[Int64]
    fence: Mapped[Int64]
    state: Mapped[AttemptState] = mapped_column(Choice(AttemptState))
    process_name: Mapped[str]
    exit_code: Mapped[int | None] = mapped_column(Whole)
    reason_code: Mapped[str | None]
    elapsed_device_ms: Mapped[int | None] = mapped_column(Whole)
    created_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
