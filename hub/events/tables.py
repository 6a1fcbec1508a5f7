"""The outbox table. Consumers keep their own cursors and read at least once."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Int64, Json, Key, When, Whole
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


class Cursor(Base):
    """How far one consumer has read."""

    __tablename__ = "event_cursors"
    __table_args__ = ({"sqlite_strict": True},)

    consumer: Mapped[Key]
    seq: Mapped[Int64]


protect_rows(Event)
