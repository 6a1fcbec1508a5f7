"""The room's face: the worker's step, and what pages and the command line ask of the trail.

It leaves the doing to the files beside it, one idea each.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.audit.chain import MAX_LINKS, chain_outboxes, leaf_of
from hub.audit.checkpoints import list_checkpoints, list_leaves, make_due_checkpoint
from hub.audit.signing import AuditKey
from hub.audit.tables import AuditCheckpoint, AuditRecord, Outbox
from hub.audit.tree import prove_inclusion
from hub.database import Sessions
from hub.errors import NotFoundError
from hub.ledger.tables import Transfer
from hub.secrets import read_secrets

MAX_PORTIONS = 25
"""Portions that one step chains at most: 5,000 links, so that the worker's other chores are not kept waiting."""


@dataclass(frozen=True)
class Proof:
    """That a transfer is in the tree of a signed checkpoint: check it with RFC 9162 §2.1.3.2."""

    transfer_id: str
    index: int
    leaf_hash: str
    path: list[str]
    checkpoint: AuditCheckpoint


def keep_audit(sessions: Sessions, home: Path, now: datetime) -> int:
    """Chain what the outboxes hold, sign a checkpoint where one is due, and return how many links were made."""
    made = 0
    for _ in range(MAX_PORTIONS):
        with sessions.write() as session:
            links = chain_outboxes(session)
        made += links
        if links < MAX_LINKS:
            break
    make_due_checkpoint(sessions, read_key(home), home, now=now)
    return made


def read_key(home: Path) -> AuditKey:
    """Return the installation's audit key from its secrets."""
    return AuditKey(read_secrets(home)["audit_key"])


def list_signed(session: Session, actor: Actor, *, limit: int = 100) -> list[AuditCheckpoint]:
    """Return checkpoints, newest first (auditor, operator)."""
    actor.require(Role.AUDITOR, Role.OPERATOR)
    return list_checkpoints(session, limit=limit)


def prove_transfer(session: Session, actor: Actor, transfer_id: str) -> Proof:
    """Return the proof that a transfer is under the newest checkpoint (auditor, operator).

    Raises:
        NotFoundError: no such transfer, or none signed yet that covers it.
    """
    actor.require(Role.AUDITOR, Role.OPERATOR)
    record = session.scalar(
        select(AuditRecord)
        .join(Transfer, Transfer.seq == AuditRecord.source_seq)
        .where(AuditRecord.outbox == Outbox.TRANSFER, Transfer.id == transfer_id)
    )
    newest = list_checkpoints(session, limit=1)
    if record is None or not newest or newest[0].size <= record.seq:
        raise NotFoundError.of("signed transfer", transfer_id)
    path = prove_inclusion(list_leaves(session, newest[0].size), record.seq)
    return Proof(transfer_id, record.seq, leaf_of(record).hex(), [node.hex() for node in path], newest[0])
