"""Compares three counts of every engine: what was billed, what its witness wrote, what its own counters say.

    billed + undelivered + own (warm-ups, probes, proofs) + awaited = the witness's rows = the engine's counters

It leaves taking the counts to `service` and `witness`, and closing a lost gateway's allowance to `hub.orders`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from hub.events.service import SYSTEM, record_event
from hub.events.tables import Event
from hub.ledger.tables import PLATFORM
from hub.metering.tables import EngineReadingRow, EngineWitness, Usage

ALARM = "metering.drifted"
GRACE = timedelta(minutes=10)
"""A gateway that is up hands its records over within seconds; one that restarts, within minutes."""
WINDOW = timedelta(hours=24)


@dataclass(frozen=True)
class Reconciled:
    """One engine process. Tokens are completions unless named otherwise; `*_prompt` are prompt tokens.

    `awaited`: rows of calls whose record has not come; `overdue` of them for more than ten minutes. `overbilled`:
    calls billed above what the engine counted. `drift`: counters minus rows when the engine last stood still, None
    before the first reading.
    """

    replica_id: str
    replica_epoch: int
    rows: int
    witnessed_prompt: int
    witnessed: int
    own_prompt: int
    own: int
    billed_prompt: int
    billed: int
    undelivered: int
    awaited: int
    overdue: int
    overbilled: int
    drift_prompt: int | None
    drift: int | None
    read_at: datetime | None

    @property
    def alarms(self) -> tuple[str, ...]:
        """Return what is wrong here, as codes; empty when every token is explained."""
        found = {
            "counters_differ": bool(self.drift or self.drift_prompt),
            "records_missing": self.overdue > 0,
            "billed_above_engine": self.overbilled > 0,
        }
        return tuple(code for code, is_so in found.items() if is_so)


def reconcile(session: Session, now: datetime, *, window: timedelta = WINDOW) -> list[Reconciled]:
    """Return every engine process that was heard of within `window`, newest first."""
    heard = (
        select(EngineWitness.replica_id, EngineWitness.replica_epoch, func.max(EngineWitness.received_at))
        .where(EngineWitness.received_at > now - window)
        .group_by(EngineWitness.replica_id, EngineWitness.replica_epoch)
        .order_by(func.max(EngineWitness.received_at).desc())
        .limit(100)
    )
    return [_reconcile_one(session, row[0], row[1], now) for row in session.execute(heard)]


def raise_alarms(session: Session, now: datetime) -> int:
    """Write one event for each engine and each thing that is wrong with its counts; returns how many were new."""
    new = 0
    for item in reconcile(session, now, window=timedelta(hours=1)):
        for code in item.alarms:
            subject = f"{item.replica_id}/{item.replica_epoch}/{code}"
            if session.scalar(select(Event.seq).where(Event.subject == subject, Event.topic == ALARM)) is None:
                _record(session, subject, item, now)
                new += 1
    return new


def list_unbilled(session: Session, allowance_ids: Sequence[str]) -> list[EngineWitness]:
    """Return what engines did on these allowances and no gateway has reported, in the order of the calls."""
    recorded = _is_recorded()
    query = (
        select(EngineWitness)
        .outerjoin(Usage, recorded)
        .where(EngineWitness.allowance_id.in_(allowance_ids), Usage.request_id.is_(None))
        .order_by(EngineWitness.request_id, EngineWitness.attempt)
    )
    return list(session.scalars(query))


def _reconcile_one(session: Session, replica_id: str, epoch: int, now: datetime) -> Reconciled:
    here = (EngineWitness.replica_id == replica_id, EngineWitness.replica_epoch == epoch)
    query = select(*_sums(now)).select_from(EngineWitness).outerjoin(Usage, _is_recorded()).where(*here)
    sums = {name: int(value or 0) for name, value in session.execute(query).one()._mapping.items()}
    reading = session.get(EngineReadingRow, (replica_id, epoch))
    return Reconciled(
        replica_id=replica_id,
        replica_epoch=epoch,
        drift_prompt=None if reading is None else reading.prompt_tokens - reading.witnessed_prompt_tokens,
        drift=None if reading is None else reading.completion_tokens - reading.witnessed_completion_tokens,
        read_at=None if reading is None else reading.read_at,
        **sums,
    )


def _sums(now: datetime) -> list[ColumnElement[Any]]:
    is_own = EngineWitness.allowance_id.is_(None)
    is_billed = and_(~is_own, Usage.request_id.is_not(None))
    is_awaited = and_(~is_own, Usage.request_id.is_(None))
    is_over = Usage.completion_tokens > EngineWitness.completion_tokens
    engine, prompt = EngineWitness.completion_tokens, EngineWitness.prompt_tokens
    is_overdue = and_(is_awaited, EngineWitness.received_at < now - GRACE, engine > 0)

    def total(condition: ColumnElement[bool], value: Any) -> ColumnElement[Any]:
        return func.sum(case((condition, value), else_=0))

    return [
        func.count().label("rows"),
        func.sum(prompt).label("witnessed_prompt"),
        func.sum(engine).label("witnessed"),
        total(is_own, prompt).label("own_prompt"),
        total(is_own, engine).label("own"),
        total(is_billed, Usage.prompt_tokens).label("billed_prompt"),
        total(is_billed, Usage.completion_tokens).label("billed"),
        total(is_billed, engine - Usage.completion_tokens).label("undelivered"),
        total(is_awaited, engine).label("awaited"),
        total(is_overdue, 1).label("overdue"),
        total(and_(is_billed, is_over), 1).label("overbilled"),
    ]


def _is_recorded() -> ColumnElement[bool]:
    return and_(Usage.request_id == EngineWitness.request_id, Usage.attempt == EngineWitness.attempt)


def _record(session: Session, subject: str, item: Reconciled, now: datetime) -> None:
    record_event(
        session,
        ALARM,
        subject,
        organisation_id=PLATFORM,
        actor_id=SYSTEM,
        now=now,
        witnessed=item.witnessed,
        billed=item.billed,
        undelivered=item.undelivered,
        awaited=item.awaited,
        overbilled=item.overbilled,
        drift=item.drift,
        drift_prompt=item.drift_prompt,
    )
