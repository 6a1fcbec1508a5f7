"""Versions of a settled bill: what was corrected, why, who asked and who approved.

It leaves the differences themselves to charges of that version, and the first version to settlement.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Document, Int64, Key, Moment, When, Whole
from hub.database import Base


class BillVersionState(StrEnum):
    """A correction above the limit waits for a second person; only a posted one moves money."""

    PROPOSED = "proposed"
    POSTED = "posted"
    REFUSED = "refused"


class BillVersion(Base):
    """Version `number` (2 and up) of an order's bill, in differences of fen against the version before it.

    `advanced_fen` is what the platform laid out because a receiver had been paid out already.
    """

    __tablename__ = "bill_versions"
    __table_args__ = (
        Index("ix_bill_versions_organisation_id_state", "organisation_id", "state"),
        Index("uq_bill_versions_order_number", "order_id", "number", unique=True),
        Index(
            "uq_bill_versions_one_proposal",
            "order_id",
            unique=True,
            sqlite_where=text("state = 'proposed'"),
            postgresql_where=text("state = 'proposed'"),
        ),
        CheckConstraint("fee_fen = voucher_fen + cash_fen AND advanced_fen >= 0", name="adds_up"),
        CheckConstraint("(state = 'posted') = (number IS NOT NULL)", name="posted_has_number"),
        CheckConstraint("number IS NULL OR number >= 2", name="after_the_first"),
        CheckConstraint("decided_by IS NULL OR decided_by <> proposed_by", name="four_eyes"),
        CheckConstraint("reason <> ''", name="reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    number: Mapped[int | None] = mapped_column(Whole)
    state: Mapped[BillVersionState] = mapped_column(Choice(BillVersionState))
    fault: Mapped[str | None]
    metered: Mapped[Any] = mapped_column(Document)
    reason: Mapped[str]
    fee_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    cash_fen: Mapped[Int64]
    advanced_fen: Mapped[Int64]
    group_id: Mapped[str | None]
    proposed_by: Mapped[str]
    proposed_at: Mapped[When]
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None] = mapped_column(Moment)
    decision_reason: Mapped[str | None]


protect_rows(
    BillVersion,
    mutable=(
        "number",
        "state",
        "fee_fen",
        "voucher_fen",
        "cash_fen",
        "advanced_fen",
        "group_id",
        "decided_by",
        "decided_at",
        "decision_reason",
    ),
)
