"""Price versions with their lines, and split terms. A new price is a new version; only its state may change.

It leaves the arithmetic of a bill to `hub.orders` and of tokens to `serving.contract`.
"""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hub.append_only import protect_rows
from hub.columns import Choice, Int64, Json, Key, When
from hub.database import Base


class Meter(StrEnum):
    """What is counted: device milliseconds, useful trained tokens, and tokens of hosted calls."""

    DEVICE_MS = "device_ms"
    TRAINED_TOKENS = "trained_tokens"
    PROMPT = "prompt"
    CACHED = "cached"
    COMPLETION = "completion"


CALL_METERS = (Meter.PROMPT, Meter.CACHED, Meter.COMPLETION)


class PriceSubject(StrEnum):
    """What a price is for; `default` as subject makes it the platform's price for all of the kind."""

    OFFER = "offer"
    TUNING = "tuning"
    BASE = "base"
    ADAPTER = "adapter"
    VERSION = "version"


class PriceState(StrEnum):
    """Withdrawn versions sell nothing new; what is pinned to them goes on."""

    ACTIVE = "active"
    WITHDRAWN = "withdrawn"


class SplitTerms(Base):
    """How a sale is shared: `parts` is a list of {party, organisation_id, num, den}; the platform takes the rest."""

    __tablename__ = "split_terms"
    __table_args__ = (
        Index("ix_split_terms_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    parts: Mapped[Json]
    published_by: Mapped[str]
    created_at: Mapped[When]


class PriceVersion(Base):
    """One published price of one subject; `organisation_id` is the seller."""

    __tablename__ = "price_versions"
    __table_args__ = (
        Index("ix_price_versions_organisation_id_subject", "organisation_id", "subject"),
        Index("ix_price_versions_subject_kind_subject_valid_from_at", "subject_kind", "subject", "valid_from_at"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    subject_kind: Mapped[PriceSubject] = mapped_column(Choice(PriceSubject))
    subject: Mapped[str]
    state: Mapped[PriceState] = mapped_column(Choice(PriceState))
    split_terms_id: Mapped[str | None] = mapped_column(ForeignKey("split_terms.id"))
    valid_from_at: Mapped[When]
    published_by: Mapped[str]
    created_at: Mapped[When]
    lines: Mapped[list["PriceLine"]] = relationship(order_by="PriceLine.meter", lazy="selectin")


class PriceLine(Base):
    """`amount_fen` for each `per_units` of one meter."""

    __tablename__ = "price_lines"
    __table_args__ = (
        CheckConstraint("amount_fen >= 0 AND per_units > 0", name="a_price"),
        {"sqlite_strict": True},
    )

    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"), primary_key=True)
    meter: Mapped[Meter] = mapped_column(Choice(Meter), primary_key=True)
    amount_fen: Mapped[Int64]
    per_units: Mapped[Int64]


protect_rows(SplitTerms)
protect_rows(PriceVersion, mutable=("state",))
protect_rows(PriceLine)
