"""Takes usage records, each exactly once; with `witness` the only writer of this room.

It leaves prices, allowances and bills to `hub.orders`, which passes its check in.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from hub.clock import to_us
from hub.errors import InvalidValueError
from hub.metering.bulk import Row, list_values, store_usage
from hub.metering.outcomes import count_outcomes
from hub.metering.rules import MAX_BATCH, check_record
from hub.metering.tables import GatewayStream, RejectedUsage, Usage
from serving import contract

CONFLICT = "conflicting_repeat"
RecordCheck = Callable[[Sequence[contract.UsageRecord]], dict[int, str]]
"""Given sound, new records, returns the code of refusal by index for those that may not be taken."""


def accept_usage(
    session: Session, batch: contract.UsageBatch, now: datetime, *, check: RecordCheck | None = None
) -> contract.UsageReply:
    """Store a batch; repeats change nothing, rejected records are kept apart. Idempotent by (request_id, attempt).

    Raises:
        InvalidValueError: more than 500 records, or a sequence number below 0.
    """
    _check_batch(batch)
    codes = {index: code for index, record in enumerate(batch.records) if (code := check_record(record))}
    fresh = _list_fresh(batch.records, codes)
    _ask(session, batch.records, fresh, codes, check)
    stored = [index for index in fresh if index not in codes]
    now_us = to_us(now)
    rows = [_list_row(batch, index, now_us) for index in stored]
    if store_usage(session, rows) < len(rows):
        _find_conflicts(session, batch.records, stored, codes)
    else:  # a batch that comes again was counted the first time
        count_outcomes(session, [batch.records[index] for index in stored])
    for index in sorted(codes):
        _reject(session, batch, index, codes[index], now)
    through = _advance_stream(session, batch, now)
    session.flush()
    rejected = tuple(contract.RejectedUsage(batch.first_seq + index, code) for index, code in sorted(codes.items()))
    return contract.UsageReply(through_seq=through, rejected=rejected)


def find_through_seq(session: Session, gateway_id: str) -> int:
    """Return the highest sequence number a gateway has sent; -1 before the first."""
    stream = session.get(GatewayStream, gateway_id)
    return stream.through_seq if stream else -1


def list_usage(
    session: Session, organisation_id: str, *, start: datetime, end: datetime, limit: int = 1000
) -> list[Usage]:
    """Return an organisation's usage that ended within [start, end), newest first."""
    return list(
        session.scalars(
            select(Usage)
            .where(Usage.organisation_id == organisation_id, Usage.ended_at >= start, Usage.ended_at < end)
            .order_by(Usage.ended_at.desc(), Usage.request_id)
            .limit(limit)
        )
    )


def _check_batch(batch: contract.UsageBatch) -> None:
    if len(batch.records) > MAX_BATCH or batch.first_seq < 0:
        raise InvalidValueError(
            f"A batch has {len(batch.records)} records from {batch.first_seq}; send at most {MAX_BATCH}, from 0 up.",
            f"批次含 {len(batch.records)} 条，起始 {batch.first_seq}；每批至多 {MAX_BATCH} 条。",
            field="records",
            limit=MAX_BATCH,
        )


def _list_fresh(records: Sequence[contract.UsageRecord], codes: dict[int, str]) -> list[int]:
    """Return the indexes of sound records, each key once; a key that comes again with other counts gets a code."""
    first: dict[tuple[str, int], int] = {}
    for index, record in enumerate(records):
        if index in codes:
            continue
        known = first.setdefault((record.request_id, record.attempt), index)
        if known != index and _counts(records[known]) != _counts(record):
            codes[index] = CONFLICT
    return list(first.values())


def _ask(
    session: Session,
    records: Sequence[contract.UsageRecord],
    fresh: Sequence[int],
    codes: dict[int, str],
    check: RecordCheck | None,
) -> None:
    """Note what the caller's check refuses; a record that is stored already is a repeat, whatever it says now."""
    refused = check([records[index] for index in fresh]) if check is not None and fresh else {}
    doubtful = [fresh[position] for position in refused]
    known = _find_known(session, [records[index] for index in doubtful])
    for position, code in refused.items():
        record = records[fresh[position]]
        found = known.get((record.request_id, record.attempt))
        if found is None:
            codes[fresh[position]] = code
        elif _counts(found) != _counts(record):
            codes[fresh[position]] = CONFLICT


def _find_conflicts(
    session: Session, records: Sequence[contract.UsageRecord], stored: Sequence[int], codes: dict[int, str]
) -> None:
    """Note keys that were there before with other counts."""
    known = _find_known(session, [records[index] for index in stored])
    for index in stored:
        record = records[index]
        if _counts(known[record.request_id, record.attempt]) != _counts(record):
            codes[index] = CONFLICT


def _find_known(session: Session, records: Sequence[contract.UsageRecord]) -> dict[tuple[str, int], Usage]:
    keys = [(record.request_id, record.attempt) for record in records]
    rows = session.scalars(select(Usage).where(tuple_(Usage.request_id, Usage.attempt).in_(keys))) if keys else ()
    return {(row.request_id, row.attempt): row for row in rows}


def _list_row(batch: contract.UsageBatch, index: int, now_us: int) -> Row:
    return list_values(
        batch.records[index],
        gateway_id=batch.gateway_id,
        gateway_epoch=batch.gateway_epoch,
        seq=batch.first_seq + index,
        now_us=now_us,
    )


def _counts(row: Usage | contract.UsageRecord) -> tuple[Any, ...]:
    return (
        row.allowance_id,
        row.organisation_id,
        row.price_version_id,
        row.version_id,
        row.prompt_tokens,
        row.cached_tokens,
        row.completion_tokens,
    )


def _reject(session: Session, batch: contract.UsageBatch, index: int, code: str, now: datetime) -> None:
    key = (batch.gateway_id, batch.gateway_epoch, batch.first_seq + index)
    if session.get(RejectedUsage, key) is None:
        record = asdict(batch.records[index])
        session.add(
            RejectedUsage(
                gateway_id=key[0], gateway_epoch=key[1], seq=key[2], code=code, record=record, received_at=now
            )
        )


def _advance_stream(session: Session, batch: contract.UsageBatch, now: datetime) -> int:
    stream = session.get(GatewayStream, batch.gateway_id, with_for_update=True)
    if stream is None:
        stream = GatewayStream(gateway_id=batch.gateway_id, through_seq=0)
        session.add(stream)
    stream.gateway_epoch = max(batch.gateway_epoch, stream.gateway_epoch or 0)
    stream.through_seq = max(stream.through_seq, batch.first_seq + len(batch.records) - 1)
    stream.updated_at = now
    return stream.through_seq
