"""Tables of filings and of decisions on derivatives. Rows are never deleted; a withdrawal is a mark."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.columns import Choice, Key, Moment, Switch, When
from hub.database import Base


class Track(StrEnum):
    """The two national tracks; the words are the papers' own."""

    FILING = "备案"
    REGISTRATION = "登记"


class Ruling(StrEnum):
    """What was decided for a derivative of a filed base."""

    FILED = "filed"
    REGISTERED = "registered"
    NOT_APPLICABLE = "not_applicable"


class Filing(Base):
    """One filing of one base model, known by its weights. `organisation_id` is the operator's that recorded it."""

    __tablename__ = "filings"
    __table_args__ = (
        CheckConstraint("length(weights_digest) = 64", name="weights_digest"),
        CheckConstraint("valid_until IS NULL OR valid_until > filed_at", name="order"),
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawal"),
        UniqueConstraint("weights_digest", "number"),
        Index("ix_filings_organisation_id_created_at", "organisation_id", "created_at"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    weights_digest: Mapped[str]
    model_name: Mapped[str]
    holder: Mapped[str]
    number: Mapped[str]
    body: Mapped[str]
    authority: Mapped[str]
    track: Mapped[Track] = mapped_column(Choice(Track))
    scope: Mapped[str]
    filed_at: Mapped[When]
    valid_until: Mapped[datetime | None] = mapped_column(Moment)
    evidence_digest: Mapped[str]
    evidence_name: Mapped[str]
    demo: Mapped[Switch]
    recorded_by: Mapped[str]
    created_at: Mapped[When]
    approved_by: Mapped[str | None]
    approved_at: Mapped[datetime | None] = mapped_column(Moment)
    withdrawn_at: Mapped[datetime | None] = mapped_column(Moment)
    withdrawn_by: Mapped[str | None]
    withdrawn_reason: Mapped[str | None]


class DerivativeDecision(Base):
    """Whether a listed derivative needs its own filing; the latest row of a version counts."""

    __tablename__ = "derivative_decisions"
    __table_args__ = (
        CheckConstraint("length(reason) > 0", name="reason"),
        CheckConstraint("(ruling = 'not_applicable') = (number IS NULL)", name="number"),
        Index("ix_derivative_decisions_organisation_id_version_id", "organisation_id", "version_id"),
        Index("ix_derivative_decisions_version_id", "version_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str]
    ruling: Mapped[Ruling] = mapped_column(Choice(Ruling))
    number: Mapped[str | None]
    reason: Mapped[str]
    decided_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    decided_at: Mapped[When]
