"""Writes the books of a period as files that the verifier checks without a database; same state, same bytes.

It leaves what a leaf says to `content` and `annexes`, and checking to `verifier`.
"""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased

from hub.audit.annexes import read_annex
from hub.audit.chain import count_missing
from hub.audit.content import ACCOUNT_FIELDS, EVENT_FIELDS, TRANSFER_FIELDS, plain
from hub.audit.openings import list_openings
from hub.audit.signing import verifier_key
from hub.audit.tables import AuditCheckpoint, AuditRecord, Outbox
from hub.clock import to_us
from hub.columns import write_json
from hub.errors import ConflictError, InvalidValueError
from hub.events.tables import Event
from hub.ledger.audit import sides_at
from hub.ledger.periods import month_bounds, month_key
from hub.ledger.tables import Account, Entry, Transfer, TransferKind

FORMAT = "guanmo-audit-export/1"
SIDES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
ANNEX_FILES = {
    "quote.made": "quotes",
    "order.settled": "orders",
    "order.refunded": "orders",
    "bill.corrected": "corrections",
    "bill_line.corrected": "call_corrections",
    "tranche.resolved": "usage",
    "rule.approved": "rules",
    "price.published": "prices",
    "grant.awarded": "grants",
    "version.registered": "versions",
    "version.created": "versions",
    "filing.recorded": "filings",
    "claim.drafted": "claims",
    "redemption.requested": "redemptions",
}
"""File of each topic's annexes. Usage is exported for the period alone; the rest, being referred to, from the start."""
KEPT_TOPICS = (
    *(topic for topic in ANNEX_FILES if topic != "tranche.resolved"),
    "filing.withdrawn",
    "grant.returned",
    "claim.submitted",
    "claim.withdrawn",
    "claim.refused",
    "claim.paid",
    "claim.reconciled",
    "redemption.checked",
    "redemption.paid",
    "redemption.refused",
    "redemption.withdrawn",
    "redemption.taken_back",
)
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


class NotSignedYetError(ConflictError):
    """The period has rows that no signed checkpoint covers."""

    code = "not_signed_yet"


@dataclass(frozen=True)
class Period:
    """Whole Shanghai months; `start` and `end` are their bounds in UTC. An empty `first`: from the beginning."""

    first: str
    last: str
    start: datetime
    end: datetime


def read_period(first: str | None, last: str) -> Period:
    """Return a period of whole months.

    Raises:
        InvalidValueError: out of shape, or the last month lies before the first.
    """
    end = month_bounds(last)[1]
    start = month_bounds(first)[0] if first else month_bounds("2000-01")[0]
    if start >= end:
        raise InvalidValueError(
            f"The period {first}..{last} ends before it begins; give the earlier month first.",
            f"期间 {first}..{last} 先后颠倒。",
            field="first",
        )
    return Period(first or "", last, start, end)


def write_export(session: Session, target: Path, period: Period, *, public: bytes) -> dict[str, Any]:
    """Write a period's export into a new folder, or a new file where `target` ends in `.zip`; return its manifest.

    Raises:
        NotSignedYetError: chain and sign first (the worker does within a minute).
        ConflictError: the target exists.
    """
    if target.exists():
        raise ConflictError(f"'{target}' exists; name a new folder or file.", f"“{target}”已存在，请换一个名称。")
    checkpoint = _find_checkpoint(session, period)
    contents = {
        name: "".join(f"{write_json(row)}\n" for row in rows) for name, rows in _files(session, period, checkpoint)
    }
    manifest = _describe(contents, period, checkpoint, public)
    contents["manifest.json"] = f"{write_json(manifest)}\n"
    _write(target, contents)
    return manifest


def _files(
    session: Session, period: Period, checkpoint: AuditCheckpoint
) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
    yield "chain.jsonl", _list_links(session, checkpoint)
    yield "checkpoints.jsonl", _list_notes(session, checkpoint)
    yield "transfers.jsonl", _list_transfers(session, period)
    yield "accounts.jsonl", _list_accounts(session, period)
    yield "bill_lines.jsonl", list_openings(session, period.start, period.end)
    events: list[dict[str, Any]] = []
    annexes: dict[str, list[dict[str, Any]]] = {name: [] for name in sorted(set(ANNEX_FILES.values()))}
    for link, event in _list_events(session, period):
        annex = read_annex(session, event)
        events.append({"link": link, "row": plain(event, EVENT_FIELDS)})
        if annex is not None:
            annexes[ANNEX_FILES[event.topic]].append({"link": link, "annex": annex})
    yield "events.jsonl", events
    for name, rows in annexes.items():
        yield f"{name}.jsonl", rows


def _find_checkpoint(session: Session, period: Period) -> AuditCheckpoint:
    """Return the first checkpoint that covers everything of the period, so that later ones change no byte."""
    last = session.scalar(select(func.max(AuditRecord.seq)).where(AuditRecord.at < period.end)) or 0
    found = session.scalar(
        select(AuditCheckpoint).where(AuditCheckpoint.size > last).order_by(AuditCheckpoint.size).limit(1)
    )
    missing = count_missing(session)
    if found is None or missing.events or missing.transfers:
        raise NotSignedYetError(
            f"{missing.events} events and {missing.transfers} transfers are not chained, or the period's end is not "
            "signed yet; run 'guanmo audit checkpoint' and export again.",
            "该期间尚有记录未入链或未签名；请运行 guanmo audit checkpoint 后重试。",
        )
    return found


def _list_links(session: Session, checkpoint: AuditCheckpoint) -> Iterator[dict[str, Any]]:
    query = select(AuditRecord).where(AuditRecord.seq < checkpoint.size).order_by(AuditRecord.seq)
    for record in session.scalars(query):
        plainly = plain(record, ("outbox", "at", "digest"))
        yield {"link": record.seq, "seq": record.source_seq} | plainly


def _list_notes(session: Session, checkpoint: AuditCheckpoint) -> Iterator[dict[str, Any]]:
    """Yield the last checkpoint of each month before, then the one that covers the period."""
    query = select(AuditCheckpoint).where(AuditCheckpoint.size <= checkpoint.size).order_by(AuditCheckpoint.size)
    months = {month_key(row.made_at): row for row in session.scalars(query)}
    for row in sorted({row.size: row for row in (*months.values(), checkpoint)}.values(), key=lambda row: row.size):
        yield {"size": row.size, "note": row.note}


def _list_transfers(session: Session, period: Period) -> Iterator[dict[str, Any]]:
    """Yield the period's transfers, and before them the holds that were open at its start."""
    end = aliased(Transfer)
    open_then = (
        select(Transfer.id)
        .outerjoin(end, end.pending_id == Transfer.id)
        .where(Transfer.kind == TransferKind.PENDING, Transfer.recorded_at < period.start)
        .where(or_(end.id.is_(None), end.recorded_at >= period.start))
    )
    query = (
        select(AuditRecord.seq, Transfer)
        .join(Transfer, (Transfer.seq == AuditRecord.source_seq) & (AuditRecord.outbox == Outbox.TRANSFER))
        .where(Transfer.recorded_at < period.end)
        .where(or_(Transfer.recorded_at >= period.start, Transfer.id.in_(open_then)))
        .order_by(Transfer.seq)
    )
    for link, row in session.execute(query):
        yield {"link": link, "row": plain(row, TRANSFER_FIELDS)}


def _list_accounts(session: Session, period: Period) -> Iterator[dict[str, Any]]:
    """Yield every account opened before the period's end with its four sides at start and end, in fen."""
    query = select(Account).where(Account.created_at < period.end).order_by(Account.id)
    for account in session.scalars(query):
        opening, closing = (sides_at(session, account.id, moment) for moment in (period.start, period.end))
        yield plain(account, ACCOUNT_FIELDS) | {"opening": _sides(opening), "closing": _sides(closing)}


def _sides(entry: Entry | None) -> list[int]:
    return [getattr(entry, side) for side in SIDES] if entry else [0, 0, 0, 0]


def _list_events(session: Session, period: Period) -> Iterator[tuple[int, Event]]:
    query = (
        select(AuditRecord.seq, Event)
        .join(Event, (Event.seq == AuditRecord.source_seq) & (AuditRecord.outbox == Outbox.EVENT))
        .where(Event.occurred_at < period.end)
        .where(or_(Event.occurred_at >= period.start, Event.topic.in_(KEPT_TOPICS)))
        .order_by(Event.seq)
    )
    for row in session.execute(query):
        yield row[0], row[1]


def _describe(contents: dict[str, str], period: Period, checkpoint: AuditCheckpoint, public: bytes) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "from": period.first,
        "to": period.last,
        "start_us": to_us(period.start),
        "end_us": to_us(period.end),
        "tree_size": checkpoint.size,
        "root": checkpoint.root,
        "chain_hash": checkpoint.chain_hash,
        "public_key": verifier_key(public),
        "files": {
            name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "lines": text.count("\n")}
            for name, text in sorted(contents.items())
        },
    }


def _write(target: Path, contents: dict[str, str]) -> None:

    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "x") as archive:
            for name, text in sorted(contents.items()):
                member = zipfile.ZipInfo(name, _EPOCH_OF_ZIP)
                archive.writestr(member, text.encode(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
        return
    target.mkdir(parents=True)
    for name, text in contents.items():
        (target / name).write_bytes(text.encode())
