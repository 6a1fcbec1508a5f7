"""Versions of a settled bill: what was corrected, why, who asked and who approved; and the calls as they should be.

It leaves the differences themselves to charges of that version, and the first version to settlement.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Document, Int64, Key, Moment, Switch, When, Whole
from hub.database import Base


class BillVersionState(StrEnum):
    """A correction above the limit waits for a second person; only a posted one moves money."""

    PROPOSED = "proposed"
    POSTED = "posted"
    REFUSED = "refused"


def _one_proposal(column: str) -> Index:
    """Return a unique index that lets one correction of a bill wait at a time."""
    waiting = text("state = 'proposed'")
    name = f"uq_bill_versions_proposed_{column}"
    return Index(name, column, unique=True, sqlite_where=waiting, postgresql_where=waiting)


class BillVersion(Base):
    """Version `number` (2 and up) of an order or of a bill line of calls, in differences of fen against the one before.

    `metered` holds the figures as they should be: by meter for an order, one entry for each call for a bill line.
    `advanced_fen` is what the platform laid out because a receiver had been paid out already; the receiver owes it.
    `elapsed_fen` is what the platform pays the provider more, or takes back, for time that stands on no bill.
    """

    __tablename__ = "bill_versions"
    __table_args__ = (
        Index("ix_bill_versions_organisation_id_state", "organisation_id", "state"),
        Index("uq_bill_versions_order_number", "order_id", "number", unique=True),
        Index("uq_bill_versions_bill_line_number", "bill_line_id", "number", unique=True),
        _one_proposal("order_id"),
        _one_proposal("bill_line_id"),
        CheckConstraint("(order_id IS NULL) <> (bill_line_id IS NULL)", name="one_bill"),
        CheckConstraint("fee_fen = voucher_fen + cash_fen AND advanced_fen >= 0", name="adds_up"),
        CheckConstraint("(state = 'posted') = (number IS NOT NULL)", name="posted_has_number"),
        CheckConstraint("number IS NULL OR number >= 2", name="after_the_first"),
        CheckConstraint("decided_by IS NULL OR decided_by <> proposed_by", name="four_eyes"),
        CheckConstraint("reason <> ''", name="reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    order_id: Mapped[str | None] = mapped_column(ForeignKey("orders.id"))
    bill_line_id: Mapped[str | None] = mapped_column(ForeignKey("bill_lines.id"))
    number: Mapped[int | None] = mapped_column(Whole)
    state: Mapped[BillVersionState] = mapped_column(Choice(BillVersionState))
    fault: Mapped[str | None]
    metered: Mapped[Any] = mapped_column(Document)
    reason: Mapped[str]
    fee_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    cash_fen: Mapped[Int64]
    advanced_fen: Mapped[Int64]
    elapsed_fen: Mapped[Int64]
    group_id: Mapped[str | None]
    proposed_by: Mapped[str]
    proposed_at: Mapped[When]
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None] = mapped_column(Moment)
    decision_reason: Mapped[str | None]


class CallCorrection(Base):
    """One call as it should have been billed; the newest version of a call counts. Differences are in µfen.

    `late_gateway_id` to `late_seq` name the kept record of a call that arrived after its allowance was closed.
    """

    __tablename__ = "call_corrections"
    __table_args__ = (
        Index("ix_call_corrections_bill_line_id", "bill_line_id"),
        Index("ix_call_corrections_request_id_attempt", "request_id", "attempt"),
        CheckConstraint("prompt_tokens >= 0 AND completion_tokens >= 0", name="no_negative_tokens"),
        CheckConstraint("cached_tokens >= 0 AND cached_tokens <= prompt_tokens", name="cached_within_prompt"),
        CheckConstraint("cost_ufen >= 0 AND was_ufen >= 0 AND cost_ufen <> was_ufen", name="something"),
        {"sqlite_strict": True},
    )

    bill_version_id: Mapped[str] = mapped_column(ForeignKey("bill_versions.id"), primary_key=True)
    request_id: Mapped[Key]
    attempt: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    bill_line_id: Mapped[str] = mapped_column(ForeignKey("bill_lines.id"))
    tranche_id: Mapped[str] = mapped_column(ForeignKey("usage_tranches.id"))
    number: Mapped[Int64]
    version_id: Mapped[str]
    prompt_tokens: Mapped[Int64]
    cached_tokens: Mapped[Int64]
    completion_tokens: Mapped[Int64]
    was_ufen: Mapped[Int64]
    cost_ufen: Mapped[Int64]
    ended_at: Mapped[When]
    late: Mapped[Switch]
    late_gateway_id: Mapped[str | None]
    late_gateway_epoch: Mapped[int | None] = mapped_column(Whole)
    late_seq: Mapped[int | None] = mapped_column(Whole)
    corrected_at: Mapped[When]


protect_rows(CallCorrection)
protect_rows(
    BillVersion,
    mutable=(
        "number",
        "state",
        "fee_fen",
        "voucher_fen",
        "cash_fen",
        "advanced_fen",
        "elapsed_fen",
        "group_id",
        "decided_by",
        "decided_at",
        "decision_reason",
    ),
)
