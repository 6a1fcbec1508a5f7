"""Payouts and every step of each. A payout's money is held in the ledger from the first step to the last.

It leaves earning it to orders.
"""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Key, When, Whole
from hub.database import Base


class PayoutState(StrEnum):
    """`unknown`: the bank did not say what became of it; the money stays held and nothing is sent again.

    `netted`: all of it paid what the organisation owed, nothing is sent. `withdrawn`: taken back before it was sent.
    """

    REQUESTED = "requested"
    IN_PAYOUT = "in_payout"
    PAID = "paid"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NETTED = "netted"
    WITHDRAWN = "withdrawn"


class Payout(Base):
    """Earned money on its way to an organisation's bank account; `idempotency_key` is the client's.

    `netted_fen` of it paid what the organisation owed; the bank sends `amount_fen` less that.
    """

    __tablename__ = "payouts"
    __table_args__ = (
        UniqueConstraint("organisation_id", "idempotency_key"),
        Index("ix_payouts_organisation_id_state", "organisation_id", "state"),
        Index("ix_payouts_state", "state"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
        CheckConstraint("netted_fen >= 0 AND netted_fen <= amount_fen", name="netted_within_amount"),
        CheckConstraint("(state = 'netted') = (netted_fen = amount_fen)", name="all_netted"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    idempotency_key: Mapped[str]
    amount_fen: Mapped[Int64]
    netted_fen: Mapped[Int64]
    state: Mapped[PayoutState] = mapped_column(Choice(PayoutState))
    requested_by: Mapped[str]
    requested_at: Mapped[When]
    changed_at: Mapped[When]
    steps: Mapped[list["PayoutStep"]] = relationship(order_by="PayoutStep.number", lazy="selectin")

    @property
    def sent_fen(self) -> int:
        """What the bank sends."""
        return self.amount_fen - self.netted_fen


class PayoutStep(Base):
    """One change of a payout's state: who, why, and the bank's reference, which names one payout only."""

    __tablename__ = "payout_steps"
    __table_args__ = (
        Index("ix_payout_steps_bank_reference", "bank_reference"),
        CheckConstraint("number >= 1", name="number"),
        {"sqlite_strict": True},
    )

    payout_id: Mapped[str] = mapped_column(ForeignKey("payouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Whole, primary_key=True, autoincrement=False)
    state: Mapped[PayoutState] = mapped_column(Choice(PayoutState))
    bank_reference: Mapped[str | None]
    reason: Mapped[str | None]
    actor_id: Mapped[str]
    at: Mapped[When]


protect_rows(Payout, mutable=("state", "changed_at"))
protect_rows(PayoutStep)
