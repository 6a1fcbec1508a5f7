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


class RuleState(StrEnum):
    """A draft counts for nothing until another person approves it."""

    DRAFT = "draft"
    APPROVED = "approved"


class ApplicationState(StrEnum):
    """Life of an application: submitted, checked by one person, approved or refused by another."""

    SUBMITTED = "submitted"
    CHECKED = "checked"
    APPROVED = "approved"
    REFUSED = "refused"


class Decision(StrEnum):
    """What a reviewer says."""

    CHECK = "check"
    APPROVE = "approve"
    REFUSE = "refuse"


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
    """A firm asks a programme for an amount on one contract; a contract is subsidised once per programme."""

    __tablename__ = "voucher_applications"
    __table_args__ = (
        Index("ix_voucher_applications_organisation_id_state", "organisation_id", "state"),
        Index(
            "uq_voucher_applications_contract",
            "programme_id",
            "contract_no",
            unique=True,
            sqlite_where=text("state <> 'refused'"),
            postgresql_where=text("state <> 'refused'"),
        ),
        CheckConstraint("asked_fen > 0", name="asked_positive"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    programme_id: Mapped[str] = mapped_column(ForeignKey("programmes.id"))
    rule_version_id: Mapped[str] = mapped_column(ForeignKey("rule_versions.id"))
    asked_fen: Mapped[Int64]
    contract_no: Mapped[str]
    evidence: Mapped[Json]
    state: Mapped[ApplicationState] = mapped_column(Choice(ApplicationState))
    applicant_id: Mapped[str]
    created_at: Mapped[When]


class VoucherReview(Base):
    """One reviewer's decision; a person decides once per application."""

    __tablename__ = "voucher_reviews"
    __table_args__ = (
        UniqueConstraint("application_id", "actor_id"),
        Index("ix_voucher_reviews_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    application_id: Mapped[str] = mapped_column(ForeignKey("voucher_applications.id"))
    actor_id: Mapped[str]
    decision: Mapped[Decision] = mapped_column(Choice(Decision))
    reason: Mapped[str]
    created_at: Mapped[When]


class Grant(Base):
    """An awarded voucher: a ledger account funded from the programme, good for holds of its cap period."""

    __tablename__ = "voucher_grants"
    __table_args__ = (
        Index("ix_voucher_grants_organisation_id_programme_id", "organisation_id", "programme_id"),
        UniqueConstraint("application_id"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
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
    approved_by: Mapped[str]
    created_at: Mapped[When]


protect_rows(RuleVersion, mutable=("state", "approved_by", "approved_at"))
protect_rows(Tranche, mutable=("released_at",))
protect_rows(Application, mutable=("state",))
protect_rows(VoucherReview)
protect_rows(Grant)
