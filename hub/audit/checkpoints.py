"""Signs the tree's state outside the database: a line in an append-only file first, then a row for reading.

It leaves growing the tree to `chain` and proving that rows fit it to `checking`.
"""

import base64
import os
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.audit.chain import HEAD, leaf_of
from hub.audit.signing import AuditKey, Signed, read_note
from hub.audit.tables import AuditCheckpoint, AuditHead, AuditRecord
from hub.audit.tree import root_of_peaks
from hub.clock import from_us, to_us
from hub.database import Sessions
from hub.errors import ConflictError

FILE = Path("audit") / "checkpoints"
PUBLIC_KEY = Path("audit") / "public_key"
EVERY = timedelta(seconds=60)


class AuditBrokenError(ConflictError):
    """The database disagrees with a checkpoint that was signed before."""

    code = "audit_broken"


def make_checkpoint(sessions: Sessions, key: AuditKey, home: Path, *, now: datetime) -> AuditCheckpoint | None:
    """Sign the chain as it stands and return the checkpoint, None where the chain has not grown.

    The last signed state is looked up in the file: a database whose chain was rewritten is not signed over.

    Raises:
        AuditBrokenError: the chain no longer starts with what was signed last.
    """
    with sessions.read() as session:
        signed = _read_state(session, now)
        last = read_last(home, key.public)
        if last is not None:
            _check_starts_with(session, last)
    if signed is None or (last is not None and last.size >= signed.size):
        return None
    note = key.sign(signed)
    _append_line(home, note)
    row = AuditCheckpoint(
        size=signed.size, root=signed.root, chain_hash=signed.chain_hash, note=note, made_at=from_us(signed.made_at_us)
    )
    with sessions.write() as session:
        session.merge(row)
    return row


def make_due_checkpoint(sessions: Sessions, key: AuditKey, home: Path, *, now: datetime) -> AuditCheckpoint | None:
    """Sign where the last checkpoint is a minute old or there is none."""
    last = read_last(home, key.public)
    if last is not None and now < from_us(last.made_at_us) + EVERY:
        return None
    return make_checkpoint(sessions, key, home, now=now)


def read_notes(home: Path) -> list[str]:
    """Return every note of the file outside the database, oldest first; none where there is no file."""
    path = home / FILE
    lines = path.read_text(encoding="ascii").split() if path.exists() else []
    return [base64.b64decode(line).decode() for line in lines]


def read_last(home: Path, public: bytes) -> Signed | None:
    """Return what was signed last, from the file."""
    notes = read_notes(home)
    return read_note(notes[-1], public) if notes else None


def list_checkpoints(session: Session, *, limit: int = 100) -> list[AuditCheckpoint]:
    """Return checkpoints, newest first."""
    return list(session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.size.desc()).limit(limit)))


def list_leaves(session: Session, size: int) -> list[bytes]:
    """Return the first `size` leaf hashes."""
    query = select(AuditRecord).where(AuditRecord.seq < size).order_by(AuditRecord.seq)
    return [leaf_of(record) for record in session.scalars(query)]


def _read_state(session: Session, now: datetime) -> Signed | None:
    head = session.get(AuditHead, HEAD)
    if head is None or not head.size:
        return None
    root = root_of_peaks([bytes.fromhex(peak) for peak in head.peaks])
    return Signed(head.size, root.hex(), head.chain_hash, to_us(now))


def _check_starts_with(session: Session, last: Signed) -> None:
    link = session.get(AuditRecord, last.size - 1)
    if link is None or link.chain_hash != last.chain_hash:
        raise AuditBrokenError(
            f"The audit chain does not hold what was signed at size {last.size}; nothing more is signed. "
            "Run 'guanmo audit check' and restore the database from before the change.",
            f"审计链与 {last.size} 处已签名的检查点不符，停止签名。请运行 guanmo audit check 并恢复数据库。",
            size=last.size,
        )


def _append_line(home: Path, note: str) -> None:
    path = home / FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as file:
        file.write(base64.b64encode(note.encode()) + b"\n")
        file.flush()
        os.fsync(file.fileno())
