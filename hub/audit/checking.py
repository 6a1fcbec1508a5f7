"""Proves the audit trail against the rows and the signed checkpoints: every broken link in words.

It leaves proofs for those who have no database to `verifier`. Nothing here writes.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.audit.chain import GENESIS, SOURCES, count_missing, digest_source, leaf_of, link
from hub.audit.signing import CheckpointRefusedError, Signed, read_note
from hub.audit.tables import AuditRecord, Outbox
from hub.audit.tree import append_leaf, root_of_peaks
from hub.events.tables import Event
from hub.ledger.tables import Transfer

MAX_PROBLEMS = 20
_PORTION = 500


def check_audit(session: Session, notes: Sequence[str], public: bytes) -> list[str]:
    """Return what is wrong, at most 20 lines; an empty list is a whole trail. Reads everything: for audits.

    `notes` are the checkpoints kept outside the database.
    """
    problems: list[str] = []
    signed = _read_notes(notes, public, problems)
    chain_hash, peaks, size = GENESIS, list[bytes](), 0
    for record, row in _walk(session):
        if record.seq != size:
            problems.append(f"link {size} is missing; the next one is {record.seq}")
            break
        problems += _check_link(session, record, row, chain_hash)
        chain_hash = record.chain_hash
        append_leaf(peaks, size, leaf_of(record))
        size += 1
        if size in signed:
            problems += _compare(signed.pop(size), root_of_peaks(peaks).hex(), chain_hash)
        if len(problems) > MAX_PROBLEMS:
            return problems[:MAX_PROBLEMS]
    problems += [f"checkpoint {missing} was signed, but the chain ends at {size}" for missing in sorted(signed)]
    missing = count_missing(session)
    if missing.events or missing.transfers:
        problems.append(f"{missing.events} events and {missing.transfers} transfers are on no link")
    return problems[:MAX_PROBLEMS]


def _read_notes(notes: Sequence[str], public: bytes, problems: list[str]) -> dict[int, Signed]:
    signed = {}
    for note in notes:
        try:
            found = read_note(note, public)
        except CheckpointRefusedError as error:
            problems.append(error.en)
        else:
            signed[found.size] = found
    return signed


def _walk(session: Session) -> Iterator[tuple[AuditRecord, Event | Transfer | None]]:
    """Yield every link with its source row, None where that is gone."""
    start = 0
    query = select(AuditRecord).order_by(AuditRecord.seq).limit(_PORTION)
    while records := list(session.scalars(query.where(AuditRecord.seq >= start))):
        rows: dict[tuple[Outbox, int], Event | Transfer] = {}
        for outbox, source in SOURCES.items():
            wanted = [record.source_seq for record in records if record.outbox is outbox]
            for row in session.scalars(select(source).where(source.seq.in_(wanted))):
                rows[outbox, row.seq] = row
        for record in records:
            yield record, rows.get((record.outbox, record.source_seq))
        start = records[-1].seq + 1


def _check_link(session: Session, record: AuditRecord, row: Event | Transfer | None, before: str) -> list[str]:
    if row is None:
        return [f"link {record.seq}: {record.outbox} {record.source_seq} is gone"]
    problems = []
    if digest_source(session, row) != record.digest:
        problems.append(f"link {record.seq}: {record.outbox} '{row.id}' is not what was chained")
    if link(before, leaf_of(record)) != record.chain_hash:
        problems.append(f"link {record.seq} does not follow the link before it")
    return problems


def _compare(signed: Signed, root: str, chain_hash: str) -> list[str]:
    if (signed.root, signed.chain_hash) == (root, chain_hash):
        return []
    return [f"checkpoint {signed.size} was signed over root {signed.root[:16]}…, the rows give {root[:16]}…"]
