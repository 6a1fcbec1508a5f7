"""Writes events in the transaction that causes them. It leaves reading them on, in order, to `hub.audit.chain`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Text, func
from sqlalchemy.orm import Session

from hub.events.tables import Event
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


def _transaction_number(session: Session) -> Any:
    """Return the transaction's own number as part of the insert, which saves a round trip; 0 on SQLite."""
    if session.get_bind().dialect.name == "sqlite":
        return 0
    return func.pg_current_xact_id().cast(Text).cast(BigInteger)
