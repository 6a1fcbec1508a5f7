"""Programmes, dated rule versions, fund tranches, applications, reviews and grants.

It leaves the money of a grant to its ledger account; only amounts awarded are repeated here.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from hub.vouchers.paper_tables import ClawBack, PaperKind, RelatedRuling, Verdict, VoucherPaper

__all__ = [
    "Application",
    "ApplicationState",
    "ClawBack",
    "Decision",
    "Grant",
    "GrantState",
    "PaperKind",
    "Programme",
    "RelatedRuling",
    "RuleState",
    "RuleVersion",
    "Tranche",
    "Verdict",
    "VoucherPaper",
    "VoucherReview",
]


class RuleState(StrEnum):
    """A draft counts for nothing until another person approves it; a refused one never will."""

    DRAFT = "draft"
    APPROVED = "approved"
    REFUSED = "refused"


class ApplicationState(StrEnum):
    """Life of an application; which step leads where stands in `hub.vouchers.rules.APPLICATION_STEPS`."""

    SUBMITTED = "submitted"
    CHECKED = "checked"
    RETURNED = "returned"
    APPROVED = "approved"
    REFUSED = "refused"
    APPEALED = "appealed"
    WITHDRAWN = "withdrawn"


class Decision(StrEnum):
    """What a reviewer says."""

    CHECK = "check"
    RETURN = "return"
    APPROVE = "approve"
    REFUSE = "refuse"


class GrantState(StrEnum):
    """An active grant may be spent; of an ended one the leftover goes back to the fund."""

    ACTIVE = "active"
    LAPSED = "lapsed"
    REVOKED = "revoked"


class Programme(Base):
    """One public programme. `objects_held` false: the hub holds nothing that it could pay for; the reason says what."""

    __tablename__ = "programmes"
    __table_args__ = (
        CheckConstraint("fund_fen IS NULL OR fund_fen > 0", name="fund"),
        CheckConstraint("objects_held = 1 OR refusal_en <> ''", name="refusal_has_reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    code: Mapped[str] = mapped_column(unique=True)
    title_zh: Mapped[str]
    title_en: Mapped[str]
    authority: Mapped[str]
    source: Mapped[str]
    objects_held: Mapped[Switch]
    refusal_zh: Mapped[str]
    refusal_en: Mapped[str]
    fund_fen: Mapped[int | None] = mapped_column(Whole)
    created_at: Mapped[When]


class RuleVersion(Base):
    """The rules of a programme from one date to another; drafted by one person, approved by a second."""

    __tablename__ = "rule_versions"
    __table_args__ = (
        UniqueConstraint("programme_id", "number"),
        CheckConstraint("approved_by IS NULL OR approved_by <> drafted_by", name="four_eyes"),
        CheckConstraint("(state = 'approved') = (approved_by IS NOT NULL)", name="approved_has_approver"),
        CheckConstraint("(state = 'refused') = (refused_by IS NOT NULL)", name="refused_has_person"),
        CheckConstraint("(refused_by IS NULL) = (refusal_reason IS NULL)", name="refusal_has_reason"),
        CheckConstraint("effective_to_at IS NULL OR effective_to_at > effective_from_at", name="period"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    number: Mapped[Int64]
    state: Mapped[RuleState] = mapped_column(Choice(RuleState))
    effective_from_at: Mapped[When]
    effective_to_at: Mapped[datetime | None] = mapped_column(Moment)
    tz: Mapped[str]
    basis_date: Mapped[str]
    source: Mapped[str]
    body: Mapped[Json]
    sha256: Mapped[str]
    drafted_by: Mapped[str]
    approved_by: Mapped[str | None]
    created_at: Mapped[When]
    approved_at: Mapped[datetime | None] = mapped_column(Moment)
    refused_by: Mapped[str | None]
    refused_at: Mapped[datetime | None] = mapped_column(Moment)
    refusal_reason: Mapped[str | None]


class Tranche(Base):
    """A part of a programme's fund and the day it may be spent from."""

    __tablename__ = "fund_tranches"
    __table_args__ = (
        UniqueConstraint("programme_id", "label"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    label: Mapped[str]
    amount_fen: Mapped[Int64]
    release_at: Mapped[When]
    our_default: Mapped[Switch]
    source: Mapped[str]
    released_at: Mapped[datetime | None] = mapped_column(Moment)


class Application(Base):
    """A firm asks a programme for an amount on one contract.

    `contract_key` is the contract's number where the rule subsidises a contract once, else the application's own id.
    `tier` is the label of the rule's tier where it has tiers. `round` counts how often the firm has completed its
    papers; a person decides once in each.
    """

    __tablename__ = "voucher_applications"
    __table_args__ = (
        Index("ix_voucher_applications_organisation_id_state", "organisation_id", "state"),
        Index(
            "uq_voucher_applications_contract",
            "organisation_id",
            "programme_id",
            "contract_key",
            unique=True,
            sqlite_where=text("state NOT IN ('refused', 'withdrawn')"),
            postgresql_where=text("state NOT IN ('refused', 'withdrawn')"),
        ),
        CheckConstraint("asked_fen > 0", name="asked_positive"),
        CheckConstraint("(appealed_at IS NULL) = (appeal_reason IS NULL)", name="appeal_has_reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    rule_version_id: Mapped[str] = mapped_column(ForeignKey("rule_versions.id"))
    asked_fen: Mapped[Int64]
    tier: Mapped[str | None]
    contract_no: Mapped[str]
    contract_key: Mapped[str]
    evidence: Mapped[Json]
    state: Mapped[ApplicationState] = mapped_column(Choice(ApplicationState))
    round: Mapped[Int64]
    appealed_at: Mapped[datetime | None] = mapped_column(Moment)
    appeal_reason: Mapped[str | None]
    applicant_id: Mapped[str]
    created_at: Mapped[When]


class VoucherReview(Base):
    """One reviewer's decision; a person decides once in each round of an application."""

    __tablename__ = "voucher_reviews"
    __table_args__ = (
        UniqueConstraint("application_id", "round", "actor_id"),
        CheckConstraint("decision IN ('check', 'approve') OR reason <> ''", name="reason"),
        Index("ix_voucher_reviews_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    application_id: Mapped[str] = mapped_column(ForeignKey("voucher_applications.id"))
    round: Mapped[Int64]
    actor_id: Mapped[str]
    decision: Mapped[Decision] = mapped_column(Choice(Decision))
    reason: Mapped[str]
    created_at: Mapped[When]


class Grant(Base):
    """An awarded voucher: a ledger account funded from the programme, good for holds of its cap period.

    `returned_fen` is what went back to the fund after the grant lapsed or was revoked.
    """

    __tablename__ = "voucher_grants"
    __table_args__ = (
        Index("ix_voucher_grants_organisation_id_programme_id", "organisation_id", "programme_id"),
        Index("ix_voucher_grants_state_lapse_at", "state", "lapse_at"),
        UniqueConstraint("application_id"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
        CheckConstraint("returned_fen >= 0", name="no_negative"),
        CheckConstraint("(state = 'active') = (ended_at IS NULL)", name="ended"),
        CheckConstraint("(ended_at IS NULL) = (ended_reason IS NULL)", name="end_has_reason"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    application_id: Mapped[str] = mapped_column(ForeignKey("voucher_applications.id"))
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    rule_version_id: Mapped[str] = mapped_column(ForeignKey("rule_versions.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("ledger_accounts.id"))
    period_key: Mapped[str]
    amount_fen: Mapped[Int64]
    returned_fen: Mapped[Int64]
    state: Mapped[GrantState] = mapped_column(Choice(GrantState))
    lapse_at: Mapped[datetime | None] = mapped_column(Moment)
    approved_by: Mapped[str]
    created_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_by: Mapped[str | None]
    ended_reason: Mapped[str | None]


protect_rows(
    RuleVersion,
    mutable=(
        "state",
        "effective_from_at",
        "approved_by",
        "approved_at",
        "refused_by",
        "refused_at",
        "refusal_reason",
    ),
)
protect_rows(Tranche, mutable=("released_at",))
protect_rows(
    Application, mutable=("state", "round", "asked_fen", "evidence", "contract_key", "appealed_at", "appeal_reason")
)
protect_rows(VoucherReview)
protect_rows(Grant, mutable=("state", "returned_fen", "ended_at", "ended_by", "ended_reason"))
