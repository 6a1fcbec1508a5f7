"""Writes events and reads them on. It leaves what an event means to the rooms on both sides."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Text, func, select
from sqlalchemy.orm import Session

from hub.events.tables import Cursor, Event
from hub.ids import new_id

SYSTEM = "system"
"""Actor of what no person did: sweepers, settlements, clocks."""


def record_event(
    session: Session, topic: str, subject: str, *, organisation_id: str, actor_id: str, now: datetime, **payload: Any
) -> Event:
    """Write one event in the caller's transaction; `topic` reads `noun.verb-past`, for example `quote.accepted`."""
    event = Event(
        id=new_id("evt"),
        topic=topic,
        subject=subject,
        organisation_id=organisation_id,
        actor_id=actor_id,
        occurred_at=now,
        schema_version=1,
        payload=payload,
        txid=_transaction_number(session),
    )
    session.add(event)
    return event


def read_events(session: Session, consumer: str, *, limit: int = 100) -> list[Event]:
    """Return the next events of a consumer, oldest first, without moving its cursor."""
    after = session.scalar(select(Cursor.seq).where(Cursor.consumer == consumer)) or 0
    return list(session.scalars(_settled(session).where(Event.seq > after).order_by(Event.seq).limit(limit)))


def advance_cursor(session: Session, consumer: str, seq: int) -> None:
    """Record that the consumer has handled everything up to `seq`."""
    cursor = session.get(Cursor, consumer) or Cursor(consumer=consumer, seq=0)
    cursor.seq = max(cursor.seq, seq)
    session.add(cursor)


def _settled(session: Session) -> Any:
    # On PostgreSQL ids commit out of order: readers stay below the oldest running transaction.
    if session.get_bind().dialect.name == "sqlite":
        return select(Event)
    return select(Event).where(
        Event.txid < func.pg_snapshot_xmin(func.pg_current_snapshot()).cast(Text).cast(BigInteger)
    )


def _transaction_number(session: Session) -> int:
    if session.get_bind().dialect.name == "sqlite":
        return 0
    return int(session.scalar(select(func.pg_current_xact_id().cast(Text).cast(BigInteger))) or 0)
