"""The outbox table. It leaves reading it exactly once and in order to the chainer of `hub.audit`."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Int64, Json, When, Whole
from hub.database import Base


class Event(Base):
    """One thing that happened to one subject; never changed, never deleted."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_organisation_id_topic", "organisation_id", "topic"),
        Index("ix_events_subject", "subject"),
        {"sqlite_strict": True},
    )

    seq: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=True)
    id: Mapped[str]
    topic: Mapped[str]
    subject: Mapped[str]
    organisation_id: Mapped[str]
    actor_id: Mapped[str]
    occurred_at: Mapped[When]
    schema_version: Mapped[Int64]
    payload: Mapped[Json]
    txid: Mapped[Int64]


protect_rows(Event)
