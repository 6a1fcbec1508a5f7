"""The money of hosted calls: tranche holds, allowances cut from them, rated usage, and bill lines with their remainder.

It leaves the tokens to `hub.metering` and settled amounts to `Charge`.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Key, Moment, Switch, When, Whole
from hub.database import Base


class TrancheState(StrEnum):
    """A tranche resolves once, when every allowance cut from it is closed."""

    OPEN = "open"
    RESOLVED = "resolved"


class AllowanceState(StrEnum):
    """An allowance is closed by its gateway after all its usage has arrived."""

    OPEN = "open"
    CLOSED = "closed"


class UsageTranche(Base):
    """A ledger hold of `held_fen` that pays hosted calls at one price in one month; allowances are slices of it.

    The whole of it is held in cash and the voucher's part beside it, because only usage tells whether a call's base
    is filed; what the voucher pays is released in cash when the tranche resolves.
    """

    __tablename__ = "usage_tranches"
    __table_args__ = (
        Index("ix_usage_tranches_organisation_id_state", "organisation_id", "state"),
        Index("ix_usage_tranches_state", "state"),
        CheckConstraint("held_fen >= 2 AND voucher_held_fen >= 0", name="held"),
        CheckConstraint("sliced_ufen >= 0 AND sliced_ufen <= (held_fen - 1) * 1000000", name="slices_within_hold"),
        CheckConstraint("(voucher_held_fen > 0) = (grant_id IS NOT NULL)", name="voucher_has_grant"),
        CheckConstraint("(state = 'open') = (resolved_at IS NULL)", name="resolved"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    month: Mapped[str]
    state: Mapped[TrancheState] = mapped_column(Choice(TrancheState))
    held_fen: Mapped[Int64]
    voucher_held_fen: Mapped[Int64]
    sliced_ufen: Mapped[Int64]
    programme: Mapped[str | None]
    rule_version_id: Mapped[str | None] = mapped_column(ForeignKey("rule_versions.id"))
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("voucher_grants.id"))
    share_num: Mapped[Int64]
    share_den: Mapped[Int64]
    opened_at: Mapped[When]
    closes_at: Mapped[When]
    resolved_at: Mapped[datetime | None] = mapped_column(Moment)


class Allowance(Base):
    """A slice of a tranche that one gateway may spend; asking again with the same key returns the same slice."""

    __tablename__ = "allowances"
    __table_args__ = (
        UniqueConstraint("gateway_id", "idempotency_key"),
        Index("ix_allowances_organisation_id_state", "organisation_id", "state"),
        Index("ix_allowances_tranche_id_state", "tranche_id", "state"),
        Index("ix_allowances_budget_id_month", "budget_id", "month"),
        CheckConstraint("amount_ufen > 0 AND spent_ufen >= 0", name="amounts"),
        CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    tranche_id: Mapped[str] = mapped_column(ForeignKey("usage_tranches.id"))
    gateway_id: Mapped[str]
    gateway_epoch: Mapped[Int64]
    idempotency_key: Mapped[str]
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    budget_id: Mapped[str | None]
    month: Mapped[str]
    want_ufen: Mapped[Int64]
    amount_ufen: Mapped[Int64]
    state: Mapped[AllowanceState] = mapped_column(Choice(AllowanceState))
    spent_ufen: Mapped[Int64]
    claimed_ufen: Mapped[int | None] = mapped_column(Whole)
    through_seq: Mapped[int | None] = mapped_column(Whole)
    granted_at: Mapped[When]
    expires_at: Mapped[When]
    closed_at: Mapped[datetime | None] = mapped_column(Moment)


class BillLine(Base):
    """Payer x price version x rule version x month. `exact_ufen` minus `posted_fen` is the remainder that carries."""

    __tablename__ = "bill_lines"
    __table_args__ = (
        Index("ix_bill_lines_organisation_id_month", "organisation_id", "month"),
        CheckConstraint("posted_fen * 1000000 <= exact_ufen", name="never_above_exact"),
        CheckConstraint("subsidised_fen * share_den <= posted_fen * share_num", name="share"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    programme: Mapped[str | None]
    rule_version_id: Mapped[str | None] = mapped_column(ForeignKey("rule_versions.id"))
    month: Mapped[str]
    share_num: Mapped[Int64]
    share_den: Mapped[Int64]
    exact_ufen: Mapped[Int64]
    posted_fen: Mapped[Int64]
    subsidised_fen: Mapped[Int64]
    created_at: Mapped[When]


class BillPart(Base):
    """What one party has received of a bill line so far, in fen; floors cumulatively."""

    __tablename__ = "bill_parts"
    __table_args__ = (CheckConstraint("amount_fen >= 0", name="no_negative"), {"sqlite_strict": True})

    bill_line_id: Mapped[str] = mapped_column(ForeignKey("bill_lines.id"), primary_key=True)
    party: Mapped[str] = mapped_column(primary_key=True)
    organisation_id: Mapped[str] = mapped_column(primary_key=True)
    amount_fen: Mapped[Int64]


class RatedUsage(Base):
    """The cost of one usage record and the bill line it falls on; each record is rated once."""

    __tablename__ = "rated_usage"
    __table_args__ = (
        Index("ix_rated_usage_bill_line_id", "bill_line_id"),
        Index("ix_rated_usage_tranche_id", "tranche_id"),
        Index("ix_rated_usage_allowance_id", "allowance_id"),
        CheckConstraint("cost_ufen >= 0", name="no_negative"),
        {"sqlite_strict": True},
    )

    request_id: Mapped[Key]
    attempt: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    allowance_id: Mapped[str] = mapped_column(ForeignKey("allowances.id"))
    tranche_id: Mapped[str] = mapped_column(ForeignKey("usage_tranches.id"))
    bill_line_id: Mapped[str] = mapped_column(ForeignKey("bill_lines.id"))
    subsidised: Mapped[Switch]
    cost_ufen: Mapped[Int64]
    rated_at: Mapped[When]


protect_rows(RatedUsage)
protect_rows(UsageTranche, mutable=("state", "sliced_ufen", "resolved_at"))
protect_rows(Allowance, mutable=("state", "spent_ufen", "claimed_ufen", "through_seq", "closed_at"))
protect_rows(BillLine, mutable=("exact_ufen", "posted_fen", "subsidised_fen"))
