"""What providers report of a rental's device time, each report kept as it came.

It leaves judging them to `meter_rules` and money to orders.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Key, Moment, When, Whole
from hub.database import Base


class MeterState(StrEnum):
    """A quarantined report counts for nothing until an operator accepts it."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"


class MeterRecord(Base):
    """One report: cumulative `device_ms` at `observed_at` by the provider's clock, with its signature.

    `counted_ms` is the cumulative time that counts, None where nothing does; `busy_from_at` to `observed_at` is the
    span of the device time that the report adds.
    """

    __tablename__ = "rental_meters"
    __table_args__ = (
        UniqueConstraint("rental_id", "fingerprint"),
        Index("ix_rental_meters_rental_id_seq", "rental_id", "seq"),
        Index("ix_rental_meters_organisation_id", "organisation_id"),
        Index("ix_rental_meters_state", "state"),
        Index("ix_rental_meters_device", "provider_organisation_id", "device_id", "observed_at"),
        CheckConstraint("seq > 0 AND device_ms >= 0 AND counted_ms >= 0", name="counts"),
        CheckConstraint("(state = 'accepted') = (counted_ms IS NOT NULL)", name="accepted_counts"),
        CheckConstraint("(code IS NULL) = (state = 'accepted' AND resolved_by IS NULL)", name="doubts_have_a_code"),
        CheckConstraint("(resolved_by IS NULL) = (resolved_at IS NULL)", name="resolved"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    provider_organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    rental_id: Mapped[str] = mapped_column(ForeignKey("rentals.id"))
    seq: Mapped[Int64]
    device_id: Mapped[str]
    device_ms: Mapped[Int64]
    counted_ms: Mapped[int | None] = mapped_column(Whole)
    busy_from_at: Mapped[When]
    observed_at: Mapped[When]
    received_at: Mapped[When]
    signature: Mapped[str]
    fingerprint: Mapped[str]
    state: Mapped[MeterState] = mapped_column(Choice(MeterState))
    code: Mapped[str | None]
    reason_zh: Mapped[str | None]
    reason_en: Mapped[str | None]
    resolved_by: Mapped[str | None]
    resolved_at: Mapped[datetime | None] = mapped_column(Moment)
    resolution: Mapped[str | None]


protect_rows(MeterRecord, mutable=("state", "counted_ms", "busy_from_at", "resolved_by", "resolved_at", "resolution"))
