"""What follows an award: papers that back its spending, voucher money taken back, and rulings on related parties.

It leaves applications and grants to `tables` and what is claimed of the authority to `hub.claims`.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base


class PaperKind(StrEnum):
    """What a paper proves."""

    CONTRACT = "contract"
    INVOICE = "invoice"
    PAYMENT = "payment"
    DELIVERY = "delivery"
    FILING = "filing"
    OTHER = "other"


class Verdict(StrEnum):
    """What an officer decided about two organisations that look related."""

    CLEARED = "cleared"
    RELATED = "related"


class VoucherPaper(Base):
    """A paper for one month of a grant's spending. An invoice of one issuer is used once, in all programmes."""

    __tablename__ = "voucher_papers"
    __table_args__ = (
        Index("ix_voucher_papers_organisation_id_grant_id", "organisation_id", "grant_id", "month"),
        Index(
            "uq_voucher_papers_invoice",
            "issuer_uscc",
            "number",
            unique=True,
            sqlite_where=text("kind = 'invoice' AND withdrawn_at IS NULL"),
            postgresql_where=text("kind = 'invoice' AND withdrawn_at IS NULL"),
        ),
        CheckConstraint("kind <> 'invoice' OR (number <> '' AND issuer_uscc <> '')", name="invoice_named"),
        CheckConstraint("kind <> 'invoice' OR amount_fen > 0", name="invoice_amount"),
        CheckConstraint("length(digest) = 64", name="digest"),
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawal"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    grant_id: Mapped[str] = mapped_column(ForeignKey("voucher_grants.id"))
    month: Mapped[str]
    kind: Mapped[PaperKind] = mapped_column(Choice(PaperKind))
    name: Mapped[str]
    digest: Mapped[str]
    number: Mapped[str]
    issuer_uscc: Mapped[str]
    amount_fen: Mapped[int | None] = mapped_column(Whole)
    added_by: Mapped[str]
    created_at: Mapped[When]
    withdrawn_at: Mapped[datetime | None] = mapped_column(Moment)
    withdrawn_by: Mapped[str | None]


class ClawBack(Base):
    """Voucher money of one charge taken back by a correction; the next claim nets what was claimed of it."""

    __tablename__ = "voucher_claw_backs"
    __table_args__ = (
        UniqueConstraint("correction_id", "charge_id", "grant_id"),
        Index("ix_voucher_claw_backs_organisation_id_grant_id", "organisation_id", "grant_id"),
        Index("ix_voucher_claw_backs_charge_id", "charge_id"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
        CheckConstraint("reason <> ''", name="reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    grant_id: Mapped[str] = mapped_column(ForeignKey("voucher_grants.id"))
    charge_id: Mapped[str]
    correction_id: Mapped[str]
    amount_fen: Mapped[Int64]
    to_fund: Mapped[Switch]
    reason: Mapped[str]
    actor_id: Mapped[str]
    created_at: Mapped[When]


class RelatedRuling(Base):
    """An officer's written decision on two organisations; the latest one of a pair counts for the signs it names."""

    __tablename__ = "related_rulings"
    __table_args__ = (
        Index("ix_related_rulings_organisation_id_other_id", "organisation_id", "other_id"),
        CheckConstraint("organisation_id < other_id", name="ordered_pair"),
        CheckConstraint("reason <> ''", name="reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    other_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    verdict: Mapped[Verdict] = mapped_column(Choice(Verdict))
    signs: Mapped[Json]
    reason: Mapped[str]
    decided_by: Mapped[str]
    created_at: Mapped[When]


protect_rows(VoucherPaper, mutable=("withdrawn_at", "withdrawn_by"))
protect_rows(ClawBack)
protect_rows(RelatedRuling)
