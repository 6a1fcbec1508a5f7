"""Takes what engines counted themselves and their counters, and keeps both side by side.

It leaves comparing them with the bills to `reconciling`, and counting to `serving.witness`.
"""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.clock import from_us
from hub.errors import InvalidValueError
from hub.metering.rules import MAX_BATCH
from hub.metering.tables import EngineReadingRow, EngineWitness
from serving import contract

EngineKey = tuple[str, int]


def take_witness(session: Session, batch: contract.WitnessBatch, now: datetime) -> int:
    """Keep the rows that are not here yet and the newest reading of each engine; returns how many rows were new.

    Raises:
        InvalidValueError: more than 500 rows, or a count below 0.
    """
    _check(batch)
    last: dict[EngineKey, int] = {}
    fresh = []
    for row in batch.rows:
        key = (row.replica_id, row.replica_epoch)
        if row.seq > last.setdefault(key, _find_last(session, key)):
            last[key] = row.seq
            fresh.append(EngineWitness(**asdict(row), received_at=now))
    session.add_all(fresh)
    session.flush()
    for reading in batch.readings:
        _keep_reading(session, reading)
    session.flush()
    return len(fresh)


def _check(batch: contract.WitnessBatch) -> None:
    counts = [(row.prompt_tokens, row.completion_tokens, row.told_cached_tokens, row.seq - 1) for row in batch.rows]
    if len(batch.rows) > MAX_BATCH or any(min(each) < 0 for each in counts):
        raise InvalidValueError(
            f"A witness batch has {len(batch.rows)} rows; send at most {MAX_BATCH}, with no count below 0.",
            f"见证批次含 {len(batch.rows)} 行；每批至多 {MAX_BATCH} 行，且计数不得为负。",
            field="rows",
            limit=MAX_BATCH,
        )


def _find_last(session: Session, key: EngineKey) -> int:
    query = select(func.max(EngineWitness.seq)).where(
        EngineWitness.replica_id == key[0], EngineWitness.replica_epoch == key[1]
    )
    return session.scalar(query) or 0


def _keep_reading(session: Session, reading: contract.EngineReading) -> None:
    key = (reading.replica_id, reading.replica_epoch)
    row = session.get(EngineReadingRow, key, with_for_update=True)
    through, before = (0, (0, 0)) if row is None else (row.through_seq, _witnessed(row))
    if reading.through_seq < through:
        return
    more = _sum_rows(session, key, after=through, through=reading.through_seq)
    session.merge(
        EngineReadingRow(
            replica_id=key[0],
            replica_epoch=key[1],
            through_seq=reading.through_seq,
            prompt_tokens=reading.prompt_tokens,
            completion_tokens=reading.completion_tokens,
            witnessed_prompt_tokens=before[0] + more[0],
            witnessed_completion_tokens=before[1] + more[1],
            read_at=from_us(reading.read_at),
        )
    )


def _witnessed(row: EngineReadingRow) -> tuple[int, int]:
    return row.witnessed_prompt_tokens, row.witnessed_completion_tokens


def _sum_rows(session: Session, key: EngineKey, *, after: int, through: int) -> tuple[int, int]:
    row = session.execute(
        select(func.sum(EngineWitness.prompt_tokens), func.sum(EngineWitness.completion_tokens)).where(
            EngineWitness.replica_id == key[0],
            EngineWitness.replica_epoch == key[1],
            EngineWitness.seq > after,
            EngineWitness.seq <= through,
        )
    ).one()
    return int(row[0] or 0), int(row[1] or 0)
