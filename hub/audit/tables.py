"""The audit chain, its head, how far each outbox has been read, and the signed checkpoints.

It leaves the contents of leaves to the tables that they are taken from.
"""

from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, When, Whole
from hub.database import Base


class Outbox(StrEnum):
    """What is chained: rows that their transaction wrote beside, or as, the thing itself."""

    EVENT = "event"
    TRANSFER = "transfer"


class AuditRecord(Base):
    """One link: `digest` over the source row and its annex, `chain_hash` over the link before and this one's leaf.

    `at` is the row's own time and part of the leaf: whoever holds the links of a year can tell that no row of a month
    was left out, without seeing the others.
    """

    __tablename__ = "audit_records"
    __table_args__ = (
        UniqueConstraint("outbox", "source_seq"),
        Index("ix_audit_records_at", "at"),
        CheckConstraint("seq >= 0", name="seq_from_zero"),
        {"sqlite_strict": True},
    )

    seq: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    outbox: Mapped[Outbox] = mapped_column(Choice(Outbox))
    source_seq: Mapped[Int64]
    at: Mapped[When]
    digest: Mapped[str]
    chain_hash: Mapped[str]


class AuditHead(Base):
    """The one row that a chainer locks: the length of the chain, its last hash, and the tree's perfect subtrees."""

    __tablename__ = "audit_heads"
    __table_args__ = ({"sqlite_strict": True},)

    name: Mapped[Key]
    size: Mapped[Int64]
    chain_hash: Mapped[str]
    peaks: Mapped[Json]


class OutboxPosition(Base):
    """Up to `done_seq` all is chained; `mark_seq` will be done once every transaction below `mark_txid` has ended."""

    __tablename__ = "audit_positions"
    __table_args__ = ({"sqlite_strict": True},)

    outbox: Mapped[Outbox] = mapped_column(Choice(Outbox), primary_key=True)
    done_seq: Mapped[Int64]
    mark_seq: Mapped[Int64]
    mark_txid: Mapped[Int64]


class AuditCheckpoint(Base):
    """One signed state of the tree, kept here for reading; the one that counts is in the file outside."""

    __tablename__ = "audit_checkpoints"
    __table_args__ = (CheckConstraint("size > 0", name="size_positive"), {"sqlite_strict": True})

    size: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    root: Mapped[str]
    chain_hash: Mapped[str]
    note: Mapped[str]
    made_at: Mapped[When]


protect_rows(AuditRecord)
protect_rows(AuditCheckpoint)
