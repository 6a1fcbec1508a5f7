"""Quotes with their lines and cover, orders, and the charges that settle them. Usage bills stand in `usage_tables`.

It leaves the money itself to the ledger; amounts here are what was agreed and what was charged.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hub.append_only import protect_rows
from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from hub.orders.correction_tables import BillVersion, BillVersionState, CallCorrection
from hub.orders.usage_tables import Allowance, BillLine, BillPart, RatedUsage, UsageTranche
from hub.prices.tables import Meter

__all__ = [
    "Allowance",
    "BillLine",
    "BillPart",
    "BillVersion",
    "BillVersionState",
    "CallCorrection",
    "Charge",
    "ChargePart",
    "Fault",
    "Order",
    "OrderState",
    "Quote",
    "QuoteCover",
    "QuoteLine",
    "QuoteState",
    "RatedUsage",
    "UsageTranche",
]


class QuoteState(StrEnum):
    """An open quote may be accepted until `valid_until`."""

    OPEN = "open"
    ACCEPTED = "accepted"
    EXPIRED = "expired"


class OrderState(StrEnum):
    """Held money ends once: settled on actuals, or refunded."""

    HELD = "held"
    SETTLED = "settled"
    REFUNDED = "refunded"


class Fault(StrEnum):
    """Whose fault ended an order early; platform and provider refund in full, user and cancel pay what was metered."""

    PLATFORM = "platform"
    PROVIDER = "provider"
    USER = "user"
    CANCEL = "cancel"


class Quote(Base):
    """What a fine-tune or rental costs at most: price, rule, split, filing, cap period pinned; a rental has no base."""

    __tablename__ = "quotes"
    __table_args__ = (
        Index("ix_quotes_organisation_id_state", "organisation_id", "state"),
        Index("ix_quotes_subject", "subject"),
        CheckConstraint("list_fen = voucher_fen + self_paid_fen", name="adds_up"),
        CheckConstraint("voucher_fen >= 0 AND self_paid_fen >= 0", name="no_negative"),
        CheckConstraint(
            "(subject_kind = 'rental') = (base_version_id IS NULL) "
            "AND (base_version_id IS NULL) = (plan_digest IS NULL)",
            name="a_fine_tune_has_a_base",
        ),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    subject_kind: Mapped[str]
    subject: Mapped[str]
    state: Mapped[QuoteState] = mapped_column(Choice(QuoteState))
    base_version_id: Mapped[str | None]
    base_public_name: Mapped[str | None]
    filed: Mapped[Switch]
    filing_id: Mapped[str | None]
    offer_id: Mapped[str]
    provider_organisation_id: Mapped[str]
    dataset_version_id: Mapped[str | None]
    plan_digest: Mapped[str | None]
    device_ms: Mapped[Int64]
    trained_tokens: Mapped[Int64]
    list_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    self_paid_fen: Mapped[Int64]
    sha256: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[When]
    valid_until: Mapped[When]
    lines: Mapped[list["QuoteLine"]] = relationship(order_by="QuoteLine.position", lazy="selectin")


class QuoteLine(Base):
    """One line of the bill: at most `quantity` of a meter at a pinned price. `notes` say which vouchers do not pay."""

    __tablename__ = "quote_lines"
    __table_args__ = (
        UniqueConstraint("quote_id", "position"),
        Index("ix_quote_lines_organisation_id", "organisation_id"),
        CheckConstraint("list_fen = voucher_fen + self_paid_fen", name="adds_up"),
        CheckConstraint("quantity >= 0 AND voucher_fen >= 0 AND self_paid_fen >= 0", name="no_negative"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    quote_id: Mapped[str] = mapped_column(ForeignKey("quotes.id"))
    position: Mapped[Int64]
    meter: Mapped[Meter] = mapped_column(Choice(Meter))
    title_zh: Mapped[str]
    title_en: Mapped[str]
    quantity: Mapped[Int64]
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    amount_fen: Mapped[Int64]
    per_units: Mapped[Int64]
    seller_organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    split_terms_id: Mapped[str | None] = mapped_column(ForeignKey("split_terms.id"))
    list_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    self_paid_fen: Mapped[Int64]
    notes: Mapped[Json]
    covers: Mapped[list["QuoteCover"]] = relationship(lazy="selectin")


class QuoteCover(Base):
    """What one voucher would pay of a line; one cover per line, so that no fen is paid twice."""

    __tablename__ = "quote_covers"
    __table_args__ = (
        UniqueConstraint("quote_line_id"),
        Index("ix_quote_covers_organisation_id", "organisation_id"),
        CheckConstraint("amount_fen > 0", name="amount_positive"),
        CheckConstraint("share_num >= 0 AND share_den > 0 AND share_num <= share_den", name="share"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    quote_line_id: Mapped[str] = mapped_column(ForeignKey("quote_lines.id"))
    programme: Mapped[str]
    rule_version_id: Mapped[str] = mapped_column(ForeignKey("rule_versions.id"))
    grant_id: Mapped[str] = mapped_column(ForeignKey("voucher_grants.id"))
    share_num: Mapped[Int64]
    share_den: Mapped[Int64]
    amount_fen: Mapped[Int64]
    period_key: Mapped[str]


class Order(Base):
    """An accepted quote with its money held; the sums are what was charged in the end."""

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("organisation_id", "idempotency_key"),
        UniqueConstraint("quote_id"),
        Index("ix_orders_organisation_id_state", "organisation_id", "state"),
        CheckConstraint("(state = 'held') = (closed_at IS NULL)", name="closed"),
        CheckConstraint("charged_fen = voucher_fen + cash_fen AND charged_fen <= held_fen", name="charged_within_held"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    quote_id: Mapped[str] = mapped_column(ForeignKey("quotes.id"))
    subject_kind: Mapped[str]
    subject: Mapped[str]
    state: Mapped[OrderState] = mapped_column(Choice(OrderState))
    cost_centre: Mapped[str | None]
    idempotency_key: Mapped[str]
    held_fen: Mapped[Int64]
    charged_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    cash_fen: Mapped[Int64]
    metered: Mapped[Any | None] = mapped_column(Document)
    fault: Mapped[Fault | None] = mapped_column(Choice(Fault))
    reason_code: Mapped[str | None]
    accepted_by: Mapped[str]
    accepted_at: Mapped[When]
    closed_at: Mapped[datetime | None] = mapped_column(Moment)


class Charge(Base):
    """One settled amount: fee = voucher + cash = sum of its parts. Never changed; a correction is another charge.

    Version 1 is the settlement; a later version holds differences, so that a bill is the sum over its versions.
    `corrects_month` is the month of version 1, while `month` is the open month in which the difference was posted.
    """

    __tablename__ = "charges"
    __table_args__ = (
        Index("ix_charges_organisation_id_month", "organisation_id", "month"),
        Index("ix_charges_order_id", "order_id"),
        Index("ix_charges_bill_line_id", "bill_line_id"),
        CheckConstraint("fee_fen = voucher_fen + cash_fen", name="adds_up"),
        CheckConstraint("version > 1 OR (voucher_fen >= 0 AND cash_fen >= 0)", name="only_corrections_give_back"),
        CheckConstraint(
            "voucher_fen * share_den <= fee_fen * share_num OR bill_line_id IS NOT NULL OR version > 1", name="share"
        ),
        CheckConstraint("version >= 1 AND (version > 1) = (corrects_month IS NOT NULL)", name="corrections_say_what"),
        CheckConstraint("(order_id IS NULL) <> (bill_line_id IS NULL)", name="one_source"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    month: Mapped[str]
    version: Mapped[int] = mapped_column(Whole, default=1)
    corrects_month: Mapped[str | None]
    order_id: Mapped[str | None] = mapped_column(ForeignKey("orders.id"))
    bill_line_id: Mapped[str | None] = mapped_column(ForeignKey("bill_lines.id"))
    tranche_id: Mapped[str | None] = mapped_column(ForeignKey("usage_tranches.id"))
    meter: Mapped[str]
    title_zh: Mapped[str]
    title_en: Mapped[str]
    quantity: Mapped[Int64]
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    amount_fen: Mapped[int | None] = mapped_column(Whole)
    per_units: Mapped[int | None] = mapped_column(Whole)
    fee_fen: Mapped[Int64]
    voucher_fen: Mapped[Int64]
    cash_fen: Mapped[Int64]
    programme: Mapped[str | None]
    rule_version_id: Mapped[str | None] = mapped_column(ForeignKey("rule_versions.id"))
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("voucher_grants.id"))
    share_num: Mapped[Int64]
    share_den: Mapped[Int64]
    group_id: Mapped[str | None]
    charged_at: Mapped[When]
    parts: Mapped[list["ChargePart"]] = relationship(lazy="selectin")


class ChargePart(Base):
    """Who received how much of a charge, negative where a correction took it back.

    `organisation_id` is empty for the platform's own books.
    """

    __tablename__ = "charge_parts"
    __table_args__ = (
        Index("ix_charge_parts_organisation_id", "organisation_id"),
        CheckConstraint("amount_fen <> 0", name="something"),
        {"sqlite_strict": True},
    )

    charge_id: Mapped[str] = mapped_column(ForeignKey("charges.id"), primary_key=True)
    party: Mapped[str] = mapped_column(primary_key=True)
    organisation_id: Mapped[str] = mapped_column(primary_key=True)
    amount_fen: Mapped[Int64]


protect_rows(Quote, mutable=("state",))
protect_rows(QuoteLine)
protect_rows(QuoteCover)
protect_rows(Charge)
protect_rows(ChargePart)
