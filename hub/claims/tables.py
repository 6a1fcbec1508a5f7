"""Claims with their lines, redemptions of what firms paid first, and the authority reports as issued.

It leaves the money to the ledger: a claim line names the transfer that it is for, and a transfer is claimed once.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, Moment, When, Whole
from hub.database import Base


class ClaimState(StrEnum):
    """Life of a claim; which step leads where stands in `hub.claims.rules.CLAIM_STEPS`."""

    DRAFTED = "drafted"
    SUBMITTED = "submitted"
    PAID = "paid"
    RECONCILED = "reconciled"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"


class RedemptionState(StrEnum):
    """Life of a redemption: requested, checked by one person, paid by another's approval; or refused, or withdrawn."""

    REQUESTED = "requested"
    CHECKED = "checked"
    PAID = "paid"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class Claim(Base):
    """What one programme asks of its authority for a period; `organisation_id` is the firm's, or empty for all firms.

    The amount is negative where corrections took back more than was used: then the authority is repaid. Records up to
    `cut_at` are in the pack, so that it can be built again at any time with the same bytes.
    """

    __tablename__ = "claims"
    __table_args__ = (
        UniqueConstraint("programme_id", "number"),
        Index("ix_claims_organisation_id_state", "organisation_id", "state"),
        CheckConstraint("submitted_by IS NULL OR submitted_by <> drafted_by", name="four_eyes"),
        CheckConstraint("(submitted_at IS NULL) = (pack_sha256 IS NULL)", name="submitted_has_pack"),
        CheckConstraint("(paid_at IS NULL) = (paid_fen IS NULL)", name="paid"),
        CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str]
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    number: Mapped[Int64]
    period: Mapped[str]
    state: Mapped[ClaimState] = mapped_column(Choice(ClaimState))
    cut_at: Mapped[When]
    amount_fen: Mapped[Int64]
    left_out: Mapped[Json]
    drafted_by: Mapped[str]
    created_at: Mapped[When]
    submitted_by: Mapped[str | None]
    submitted_at: Mapped[datetime | None] = mapped_column(Moment)
    pack_sha256: Mapped[str | None]
    paid_fen: Mapped[int | None] = mapped_column(Whole)
    paid_reference: Mapped[str | None]
    paid_at: Mapped[datetime | None] = mapped_column(Moment)
    paid_by: Mapped[str | None]
    ended_by: Mapped[str | None]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_reason: Mapped[str | None]


class ClaimLine(Base):
    """One transfer out of a grant (or back into it, negative) in a claim. A claim given up frees its transfers."""

    __tablename__ = "claim_lines"
    __table_args__ = (
        UniqueConstraint("claim_id", "position"),
        UniqueConstraint("claimed_transfer_id"),
        Index("ix_claim_lines_organisation_id_claim_id", "organisation_id", "claim_id"),
        CheckConstraint("amount_fen <> 0", name="something"),
        CheckConstraint("claimed_transfer_id IS NULL OR claimed_transfer_id = transfer_id", name="own_transfer"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"))
    position: Mapped[Int64]
    grant_id: Mapped[str] = mapped_column(ForeignKey("voucher_grants.id"))
    transfer_id: Mapped[str] = mapped_column(ForeignKey("ledger_transfers.id"))
    claimed_transfer_id: Mapped[str | None]
    amount_fen: Mapped[Int64]
    booked_at: Mapped[When]


class Redemption(Base):
    """A firm asks a grant of a reimbursing rule for the share of fees it has paid in full."""

    __tablename__ = "redemptions"
    __table_args__ = (
        Index("ix_redemptions_organisation_id_state", "organisation_id", "state"),
        CheckConstraint("amount_fen > 0 AND amount_fen <= eligible_fen", name="amount"),
        CheckConstraint("approved_by IS NULL OR approved_by <> checked_by", name="four_eyes"),
        CheckConstraint("(state = 'paid') = (paid_at IS NOT NULL)", name="paid"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    grant_id: Mapped[str] = mapped_column(ForeignKey("voucher_grants.id"))
    rule_version_id: Mapped[str] = mapped_column(ForeignKey("rule_versions.id"))
    state: Mapped[RedemptionState] = mapped_column(Choice(RedemptionState))
    eligible_fen: Mapped[Int64]
    amount_fen: Mapped[Int64]
    requested_by: Mapped[str]
    created_at: Mapped[When]
    checked_by: Mapped[str | None]
    approved_by: Mapped[str | None]
    reason: Mapped[str]
    paid_at: Mapped[datetime | None] = mapped_column(Moment)


class RedemptionLine(Base):
    """One charge in a redemption; a refused or withdrawn redemption frees its charges."""

    __tablename__ = "redemption_lines"
    __table_args__ = (
        UniqueConstraint("redeemed_charge_id"),
        Index("ix_redemption_lines_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    redemption_id: Mapped[str] = mapped_column(ForeignKey("redemptions.id"), primary_key=True)
    charge_id: Mapped[str] = mapped_column(ForeignKey("charges.id"), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    redeemed_charge_id: Mapped[str | None]
    fee_fen: Mapped[Int64]


class RedemptionClawBack(Base):
    """What a correction took back of a paid redemption: `fee_fen` of its fees, `amount_fen` of its money.

    `base` is the bill line, or order and meter, whose fee fell; `owed_fen` is what the firm's cash did not cover then.
    """

    __tablename__ = "redemption_claw_backs"
    __table_args__ = (
        Index("ix_redemption_claw_backs_base", "base"),
        Index("ix_redemption_claw_backs_redemption_id", "redemption_id"),
        Index("ix_redemption_claw_backs_organisation_id", "organisation_id"),
        CheckConstraint("fee_fen > 0 AND amount_fen >= 0", name="amounts"),
        CheckConstraint("owed_fen >= 0 AND owed_fen <= amount_fen", name="owed_within_amount"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    redemption_id: Mapped[str] = mapped_column(ForeignKey("redemptions.id"))
    charge_id: Mapped[str] = mapped_column(ForeignKey("charges.id"))
    base: Mapped[str]
    fee_fen: Mapped[Int64]
    amount_fen: Mapped[Int64]
    owed_fen: Mapped[Int64]
    created_at: Mapped[When]


class AuthorityReport(Base):
    """The report on all programmes for a period whose months are closed, with its bytes; a period is reported once."""

    __tablename__ = "authority_reports"
    __table_args__ = (UniqueConstraint("period"), UniqueConstraint("number"), {"sqlite_strict": True})

    id: Mapped[Key]
    number: Mapped[Int64]
    period: Mapped[str]
    json_text: Mapped[str]
    json_sha256: Mapped[str]
    csv_text: Mapped[str]
    csv_sha256: Mapped[str]
    previous_id: Mapped[str | None] = mapped_column(ForeignKey("authority_reports.id"))
    issued_by: Mapped[str]
    created_at: Mapped[When]


protect_rows(
    Claim,
    mutable=(
        "state",
        "submitted_by",
        "submitted_at",
        "pack_sha256",
        "paid_fen",
        "paid_reference",
        "paid_at",
        "paid_by",
        "ended_by",
        "ended_at",
        "ended_reason",
    ),
)
protect_rows(ClaimLine, mutable=("claimed_transfer_id",))
protect_rows(Redemption, mutable=("state", "checked_by", "approved_by", "reason", "paid_at"))
protect_rows(RedemptionLine, mutable=("redeemed_charge_id",))
protect_rows(RedemptionClawBack)
protect_rows(AuthorityReport)
