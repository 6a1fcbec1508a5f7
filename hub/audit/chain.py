"""The chainer: takes what the outboxes hold, in order and exactly once, onto the hash chain and into the tree.

Two chainers cannot fork the chain: the head row is locked, and every link has its number as primary key. It leaves
signing to `checkpoints`, and reads nothing of a running transaction.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, exists, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from hub.audit.annexes import read_annex
from hub.audit.content import EVENT_FIELDS, TRANSFER_FIELDS, digest_row, plain, write_leaf
from hub.audit.tables import AuditHead, AuditRecord, Outbox, OutboxPosition
from hub.audit.tree import append_leaf, hash_leaf
from hub.columns import Whole
from hub.database import Sessions
from hub.events.tables import Event
from hub.ledger.tables import Transfer

HEAD = "chain"
GENESIS = "0" * 64
MAX_LINKS = 200
"""Links made in one transaction, so that the head is locked for milliseconds only."""

SOURCES: dict[Outbox, Any] = {Outbox.EVENT: Event, Outbox.TRANSFER: Transfer}


@dataclass(frozen=True)
class Missing:
    """Rows that no link stands for yet, by outbox."""

    events: int
    transfers: int


def chain_all(sessions: Sessions, *, limit: int = MAX_LINKS) -> int:
    """Chain until nothing is left, a short transaction at a time; return how many links were made."""
    total = 0
    while made := _chain_once(sessions, limit):
        total += made
        if made < limit:
            break
    return total


def chain_outboxes(session: Session, *, limit: int = MAX_LINKS) -> int:
    """Make the next links, at most `limit`, and return how many. Waits for another chainer to finish first."""
    head = _lock_head(session)
    made = 0
    for outbox in Outbox:
        made += _chain_outbox(session, head, outbox, limit - made)
    session.flush()
    return made


def count_missing(session: Session) -> Missing:
    """Return how many committed rows have no link: 0 once the chainer has caught up. Reads everything: for audits."""
    counts = {}
    for outbox, source in SOURCES.items():
        query = select(func.count()).select_from(source).where(_is_unchained(outbox, source))
        counts[outbox] = session.scalar(query) or 0
    return Missing(counts[Outbox.EVENT], counts[Outbox.TRANSFER])


def digest_source(session: Session, row: Event | Transfer) -> str:
    """Return the digest of a row as the database has it now."""
    if isinstance(row, Event):
        return digest_row(plain(row, EVENT_FIELDS), read_annex(session, row))
    return digest_row(plain(row, TRANSFER_FIELDS), None)


def leaf_of(record: AuditRecord) -> bytes:
    """Return the leaf hash of a link."""
    return hash_leaf(write_leaf(record.outbox, record.source_seq, at=record.at, digest=record.digest))


def link(chain_hash: str, leaf: bytes) -> str:
    """Return the hash of the next link."""
    return hashlib.sha256(bytes.fromhex(chain_hash) + leaf).hexdigest()


def _chain_once(sessions: Sessions, limit: int) -> int:
    with sessions.write() as session:
        return chain_outboxes(session, limit=limit)


def _lock_head(session: Session) -> AuditHead:
    insert = sqlite_insert if _is_sqlite(session) else postgresql_insert
    empty = {"name": HEAD, "size": 0, "chain_hash": GENESIS, "peaks": []}
    session.execute(insert(AuditHead).values(empty).on_conflict_do_nothing())
    return session.get_one(AuditHead, HEAD, with_for_update=True, populate_existing=True)


def _chain_outbox(session: Session, head: AuditHead, outbox: Outbox, limit: int) -> int:
    source = SOURCES[outbox]
    position = session.get(OutboxPosition, outbox) or OutboxPosition(outbox=outbox, done_seq=0, mark_seq=0, mark_txid=0)
    session.add(position)
    # Where everything up to the mark is visible by now, it is done once this turn has taken it.
    settled = position.mark_seq if position.mark_txid < _horizon(session) else position.done_seq
    query = (
        select(source)
        .where(source.seq > position.done_seq, _is_unchained(outbox, source), _is_settled(session, source))
        .order_by(source.seq)
        .limit(limit)
    )
    rows: Sequence[Event | Transfer] = session.scalars(query).all()
    for row in rows:
        _append(session, head, outbox, row)
    if len(rows) < limit:
        position.done_seq = max(position.done_seq, settled)
        _move_mark(session, position, source)
    return len(rows)


def _append(session: Session, head: AuditHead, outbox: Outbox, row: Event | Transfer) -> None:
    at = row.occurred_at if isinstance(row, Event) else row.recorded_at
    record = AuditRecord(
        seq=head.size, outbox=outbox, source_seq=row.seq, at=at, digest=digest_source(session, row), chain_hash=""
    )
    leaf, peaks = leaf_of(record), [bytes.fromhex(peak) for peak in head.peaks]
    append_leaf(peaks, head.size, leaf)
    head.chain_hash = record.chain_hash = link(head.chain_hash, leaf)
    head.peaks, head.size = [peak.hex() for peak in peaks], head.size + 1
    session.add(record)


def _move_mark(session: Session, position: OutboxPosition, source: Any) -> None:
    """Set the next mark where the last one is done: transactions that run now may still hold numbers below it."""
    if position.done_seq == position.mark_seq or position.mark_txid > _next_transaction(session):
        position.mark_txid = _next_transaction(session)
        position.mark_seq = session.scalar(select(func.coalesce(func.max(source.seq), 0))) or 0
        if _is_sqlite(session):
            position.done_seq = position.mark_seq


def _is_unchained(outbox: Outbox, source: Any) -> ColumnElement[bool]:
    return ~exists().where(AuditRecord.outbox == outbox, AuditRecord.source_seq == source.seq)


def _is_settled(session: Session, source: Any) -> ColumnElement[bool]:
    """Pass rows whose transaction began before every one that still runs (PostgreSQL; SQLite has one writer)."""
    if _is_sqlite(session):
        return true()
    written = func.age(literal_column(f"{source.__tablename__}.xmin"))
    return written > func.age(literal_column("pg_snapshot_xmin(pg_current_snapshot())::xid"))


def _horizon(session: Session) -> int:
    return _read_number(session, func.pg_snapshot_xmin(func.pg_current_snapshot()))


def _next_transaction(session: Session) -> int:
    return _read_number(session, func.pg_snapshot_xmax(func.pg_current_snapshot()))


def _read_number(session: Session, expression: Any) -> int:
    if _is_sqlite(session):
        return 1
    return int(session.scalar(select(expression.cast(Text).cast(Whole))) or 0)


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
