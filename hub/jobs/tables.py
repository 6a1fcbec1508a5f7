"""Rows of work and the lock rows that elect one worker. What a kind of work means is left to its handler."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.columns import Choice, Document, Int64, Key, Moment, When
from hub.database import Base


class JobState(StrEnum):
    """Where a piece of work stands; `waiting` and `locked` are open."""

    WAITING = "waiting"
    LOCKED = "locked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OPEN = text("state IN ('waiting', 'locked')")


class Job(Base):
    """One piece of work on one subject; at most one open row per kind and subject."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("uq_jobs_kind_subject_open", "kind", "subject", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_jobs_organisation_id_kind", "organisation_id", "kind"),
        Index("ix_jobs_state_run_after", "state", "run_after"),
        CheckConstraint("(state = 'locked') = (lock_token IS NOT NULL)", name="locked_has_token"),
        CheckConstraint("(lock_token IS NULL) = (locked_until IS NULL)", name="token_has_end"),
        CheckConstraint("attempts >= 0 AND failures >= 0 AND max_failures >= 1", name="counts"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str]
    kind: Mapped[str]
    subject: Mapped[str]
    state: Mapped[JobState] = mapped_column(Choice(JobState))
    payload: Mapped[Any | None] = mapped_column(Document)
    lock_token: Mapped[str | None]
    locked_by: Mapped[str | None]
    locked_until: Mapped[datetime | None] = mapped_column(Moment)
    attempts: Mapped[Int64]
    """How often a worker locked it."""
    failures: Mapped[Int64]
    max_failures: Mapped[Int64]
    run_after: Mapped[When]
    last_error: Mapped[str | None]
    created_at: Mapped[When]
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class LockRow(Base):
    """A role that one process at a time may hold, for example the sweeper."""

    __tablename__ = "lock_rows"
    __table_args__ = ({"sqlite_strict": True},)

    name: Mapped[Key]
    holder: Mapped[str]
    locked_until: Mapped[When]
