"""Accounts, transfers and entries. Balances live on the account row; every change of one has its entry.

It leaves what an account means for a firm or a programme to the rooms that open it.
"""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Key, Switch, When, Whole
from hub.database import Base
from hub.ledger.routines import POSTGRESQL
from hub.routines import install_routines, only_on

PLATFORM = "platform"
"""`organisation_id` of the books that belong to no tenant: bank, programme funds, platform income."""


class AccountKind(StrEnum):
    """What an account is for (chart of accounts)."""

    BANK = "bank"
    FIRM_CASH = "firm_cash"
    APPROPRIATION = "appropriation"
    PROGRAMME_FUND = "programme_fund"
    GRANT = "grant"
    CLEARING = "clearing"
    PAYABLE = "payable"
    POOL_INCOME = "pool_income"
    PLATFORM_INCOME = "platform_income"
    PLATFORM_COST = "platform_cost"
    AUTHORITY_RECEIVABLE = "authority_receivable"
    FIRM_RECEIVABLE = "firm_receivable"
    BREAKAGE = "breakage"


LIMITED = frozenset(
    {AccountKind.FIRM_CASH, AccountKind.PROGRAMME_FUND, AccountKind.GRANT, AccountKind.CLEARING, AccountKind.PAYABLE}
)
"""Kinds that may never be debited, held amounts included, beyond what was credited."""

CREDIT_LIMITED = frozenset({AccountKind.AUTHORITY_RECEIVABLE, AccountKind.FIRM_RECEIVABLE})
"""Kinds that may never be credited, held amounts included, beyond what was debited: nobody pays more than is owed."""


class TransferKind(StrEnum):
    """How a transfer moves money: at once, as a hold, or as the end of a hold."""

    SINGLE = "single"
    PENDING = "pending"
    POST = "post"
    VOID = "void"


class Leg(StrEnum):
    """The side of a transfer that an entry records."""

    DEBIT = "debit"
    CREDIT = "credit"


def _unique_where_set(column: str) -> Index:
    """Return a unique index over the few rows that have a value; the many without cost nothing."""
    name, filled = f"uq_ledger_transfers_{column}", text(f"{column} IS NOT NULL")
    return Index(name, column, unique=True, sqlite_where=filled, postgresql_where=filled)


class Account(Base):
    """One account in fen. `subject` tells apart accounts of one kind (a grant, an order), `period_key` cap periods."""

    __tablename__ = "ledger_accounts"
    __table_args__ = (
        UniqueConstraint("organisation_id", "kind", "subject", "period_key"),
        *only_on(
            "sqlite",
            no_negative_side="debits_pending >= 0 AND debits_posted >= 0 "
            "AND credits_pending >= 0 AND credits_posted >= 0",
            within_limit="limited = 0 OR debits_pending + debits_posted <= credits_posted",
            within_credit_limit="credit_limited = 0 OR credits_pending + credits_posted <= debits_posted",
        ),
        *only_on(
            "postgresql",
            sides_hold="ledger_sides_hold(limited, credit_limited, debits_pending, debits_posted, "
            "credits_pending, credits_posted)",
        ),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str]
    kind: Mapped[AccountKind] = mapped_column(Choice(AccountKind))
    subject: Mapped[str]
    period_key: Mapped[str]
    currency: Mapped[str]
    limited: Mapped[Switch]
    credit_limited: Mapped[Switch]
    debits_pending: Mapped[Int64]
    debits_posted: Mapped[Int64]
    credits_pending: Mapped[Int64]
    credits_posted: Mapped[Int64]
    version: Mapped[Int64]
    created_at: Mapped[When]

    @property
    def available_fen(self) -> int:
        """What a new debit may still take: credits minus debits, held amounts counted as gone."""
        return self.credits_posted - self.debits_posted - self.debits_pending

    @property
    def balance_fen(self) -> int:
        """Posted credits minus posted debits."""
        return self.credits_posted - self.debits_posted


class Transfer(Base):
    """One immutable movement of money from the debit account to the credit account."""

    __tablename__ = "ledger_transfers"
    __table_args__ = (
        UniqueConstraint("id"),
        _unique_where_set("pending_id"),
        _unique_where_set("reverses_id"),
        UniqueConstraint("group_id", "position"),
        Index("ix_ledger_transfers_business_id", "business_id"),
        *only_on(
            "sqlite",
            amount_positive="amount_fen > 0",
            two_accounts="debit_id <> credit_id",
            resolution_names_hold="(kind IN ('post', 'void')) = (pending_id IS NOT NULL)",
            reversal_moves_at_once="reverses_id IS NULL OR kind = 'single'",
        ),
        *only_on(
            "postgresql",
            transfer_holds="ledger_transfer_holds(kind, amount_fen, debit_id, credit_id, pending_id, reverses_id)",
        ),
        {"sqlite_strict": True},
    )

    seq: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=True)
    id: Mapped[str]
    group_id: Mapped[str]
    position: Mapped[Int64]
    kind: Mapped[TransferKind] = mapped_column(Choice(TransferKind))
    debit_id: Mapped[str] = mapped_column(ForeignKey("ledger_accounts.id"))
    credit_id: Mapped[str] = mapped_column(ForeignKey("ledger_accounts.id"))
    amount_fen: Mapped[Int64]
    pending_id: Mapped[str | None] = mapped_column(ForeignKey("ledger_transfers.id"))
    reverses_id: Mapped[str | None] = mapped_column(ForeignKey("ledger_transfers.id"))
    code: Mapped[str]
    business_type: Mapped[str]
    business_id: Mapped[str]
    rule_version_id: Mapped[str | None]
    price_version_id: Mapped[str | None]
    actor_id: Mapped[str]
    event_at: Mapped[When]
    recorded_at: Mapped[When]
    fingerprint: Mapped[str]


class Entry(Base):
    """One leg of one transfer with the account's four sides after it; versions of an account have no gap.

    Derived from its transfer, whose accounts are foreign keys; that each has its transfer is invariant I1, because two
    more foreign keys on two rows cost a tenth of a posting.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("transfer_id", "leg"),
        CheckConstraint("account_version >= 1", name="version_from_one"),
        {"sqlite_strict": True},
    )

    account_id: Mapped[Key]
    account_version: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    transfer_id: Mapped[str]
    leg: Mapped[Leg] = mapped_column(Choice(Leg))
    amount_fen: Mapped[Int64]
    debits_pending: Mapped[Int64]
    debits_posted: Mapped[Int64]
    credits_pending: Mapped[Int64]
    credits_posted: Mapped[Int64]
    recorded_at: Mapped[When]


class HoldLease(Base):
    """Until when a hold may be posted unless its holder renews; goes with the hold, and none means no expiry."""

    __tablename__ = "ledger_hold_leases"
    __table_args__ = (
        Index("ix_ledger_hold_leases_expires_at", "expires_at"),
        CheckConstraint("expires_at > renewed_at", name="order"),
        {"sqlite_strict": True},
    )

    hold_id: Mapped[str] = mapped_column(ForeignKey("ledger_transfers.id"), primary_key=True)
    expires_at: Mapped[When]
    renewed_at: Mapped[When]


class ClosedMonth(Base):
    """A Shanghai month that takes no posting any more; what comes late is dated in an open month."""

    __tablename__ = "ledger_closed_months"
    __table_args__ = ({"sqlite_strict": True},)

    month: Mapped[Key]
    closed_by: Mapped[str]
    closed_at: Mapped[When]


install_routines(Account, {"postgresql": POSTGRESQL})
protect_rows(Account, mutable=("debits_pending", "debits_posted", "credits_pending", "credits_posted", "version"))
protect_rows(Transfer)
protect_rows(Entry)
protect_rows(ClosedMonth)
