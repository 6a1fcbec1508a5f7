"""Rows of providers, their offers and machines, and of what is held: slots (serving) and rentals (anything sold).

It leaves what providers report of a rental's device time to `meter_tables`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.compute.meter_tables import MeterRecord, MeterState
from hub.database import Base

__all__ = [
    "Device",
    "HoldState",
    "MeterRecord",
    "MeterState",
    "Node",
    "NodeState",
    "Offer",
    "OfferState",
    "Provider",
    "Rental",
    "RentalPurpose",
    "Slot",
]


class Device(StrEnum):
    """What a trainer or engine runs on."""

    CPU = "cpu"
    CUDA = "cuda"


class OfferState(StrEnum):
    """Paused and withdrawn offers take no new order; running rentals finish. Only a paused one opens again."""

    OPEN = "open"
    PAUSED = "paused"
    WITHDRAWN = "withdrawn"


class NodeState(StrEnum):
    """`draining` takes nothing new."""

    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


class RentalPurpose(StrEnum):
    """What a rental is used for."""

    TRAIN = "train"
    SERVE = "serve"
    EVALUATE = "evaluate"
    REVIEW = "review"
    CUSTOMER = "customer"
    """A firm uses the devices itself and pays by the provider's signed meter."""


class HoldState(StrEnum):
    """Whether a slot or rental is still held."""

    ACTIVE = "active"
    RELEASED = "released"


class Provider(Base):
    """An organisation that rents devices out. `meter_key_number` counts the keys it was given; 0 is none yet."""

    __tablename__ = "providers"
    __table_args__ = (CheckConstraint("meter_key_number >= 0", name="meter_key_number"), {"sqlite_strict": True})

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), unique=True)
    name_zh: Mapped[str]
    name_en: Mapped[str]
    meter_key_number: Mapped[int] = mapped_column(Whole, default=0)
    created_by: Mapped[str]
    created_at: Mapped[When]


class Offer(Base):
    """Devices at a price. `amount_fen` per `per_units` device ms repeats the price version, which never changes."""

    __tablename__ = "offers"
    __table_args__ = (
        Index("ix_offers_organisation_id_state", "organisation_id", "state"),
        Index("ix_offers_state_accelerator", "state", "accelerator"),
        CheckConstraint("amount_fen >= 0 AND per_units > 0", name="price"),
        CheckConstraint("count > 0 AND available >= 0 AND cpu_threads > 0 AND memory_gib > 0", name="sizes"),
        CheckConstraint("tokens_per_s > 0", name="speed"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    provider_id: Mapped[str] = mapped_column(ForeignKey("providers.id"))
    state: Mapped[OfferState] = mapped_column(Choice(OfferState))
    title_zh: Mapped[str]
    title_en: Mapped[str]
    accelerator: Mapped[str]
    count: Mapped[Int64]
    """Accelerators in one rental."""
    memory_gib: Mapped[Int64]
    region_zh: Mapped[str]
    region_en: Mapped[str]
    via_city_platform: Mapped[Switch]
    device: Mapped[Device] = mapped_column(Choice(Device))
    cpu_threads: Mapped[Int64]
    tokens_per_s: Mapped[Int64]
    """Nominal training speed, from which a quote's device time is estimated where no measurement is known."""
    price_version_id: Mapped[str] = mapped_column(ForeignKey("price_versions.id"))
    amount_fen: Mapped[Int64]
    per_units: Mapped[Int64]
    available: Mapped[Int64]
    """How many rentals may run at once."""
    allocation_epoch: Mapped[Int64]
    valid_until: Mapped[datetime | None] = mapped_column(Moment)
    created_by: Mapped[str]
    created_at: Mapped[When]

    def is_open(self, now: datetime) -> bool:
        """Whether it may be quoted."""
        return self.state is OfferState.OPEN and (self.valid_until is None or self.valid_until > now)


class Node(Base):
    """One machine. `serve_slots` bounds the engine processes that it carries."""

    __tablename__ = "nodes"
    __table_args__ = (
        UniqueConstraint("organisation_id", "name"),
        CheckConstraint("serve_slots >= 0", name="serve_slots"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str]
    state: Mapped[NodeState] = mapped_column(Choice(NodeState))
    device: Mapped[Device] = mapped_column(Choice(Device))
    devices: Mapped[Json]
    cpu_threads: Mapped[Int64]
    memory_gib: Mapped[Int64]
    serve_slots: Mapped[Int64]
    seen_at: Mapped[When]
    created_at: Mapped[When]


class Slot(Base):
    """Devices of a node granted to one replica set; a new grant has a higher epoch."""

    __tablename__ = "slots"
    __table_args__ = (
        Index("ix_slots_organisation_id_state", "organisation_id", "state"),
        Index("ix_slots_set_id", "set_id"),
        CheckConstraint("(state = 'released') = (released_at IS NOT NULL)", name="released"),
        CheckConstraint("allocation_epoch > 0 AND device_ms >= 0", name="counts"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"))
    set_id: Mapped[str]
    state: Mapped[HoldState] = mapped_column(Choice(HoldState))
    devices: Mapped[Json]
    allocation_epoch: Mapped[Int64]
    drain_by: Mapped[datetime | None] = mapped_column(Moment)
    device_ms: Mapped[Int64]
    granted_at: Mapped[When]
    released_at: Mapped[datetime | None] = mapped_column(Moment)


class Rental(Base):
    """Devices of an offer held by one customer; `device_ms` is cumulative, ordered by `meter_seq`.

    `limit_ms` is the device time that a customer's holds cover (None for runs, which their quote bounds); `fault`
    says whose it was where a rental ended early.
    """

    __tablename__ = "rentals"
    __table_args__ = (
        Index("ix_rentals_organisation_id_state", "organisation_id", "state"),
        Index("ix_rentals_offer_id_state", "offer_id", "state"),
        UniqueConstraint("offer_id", "allocation_epoch"),
        CheckConstraint("(state = 'released') = (released_at IS NOT NULL)", name="released"),
        Index("ix_rentals_provider_organisation_id_state", "provider_organisation_id", "state"),
        CheckConstraint(
            "(CASE WHEN run_id IS NULL THEN 0 ELSE 1 END) + (CASE WHEN set_id IS NULL THEN 0 ELSE 1 END) "
            "+ (CASE WHEN order_id IS NULL THEN 0 ELSE 1 END) = 1",
            name="one_user",
        ),
        CheckConstraint("(order_id IS NULL) = (limit_ms IS NULL)", name="customers_have_a_limit"),
        CheckConstraint("device_ms >= 0 AND meter_seq >= 0 AND allocation_epoch > 0", name="counts"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    provider_organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    offer_id: Mapped[str] = mapped_column(ForeignKey("offers.id"))
    node_id: Mapped[str | None] = mapped_column(ForeignKey("nodes.id"))
    purpose: Mapped[RentalPurpose] = mapped_column(Choice(RentalPurpose))
    run_id: Mapped[str | None]
    set_id: Mapped[str | None]
    order_id: Mapped[str | None]
    limit_ms: Mapped[int | None] = mapped_column(Whole)
    state: Mapped[HoldState] = mapped_column(Choice(HoldState))
    fault: Mapped[str | None]
    allocation_epoch: Mapped[Int64]
    device_ms: Mapped[Int64]
    meter_seq: Mapped[int] = mapped_column(Whole)
    drain_by: Mapped[datetime | None] = mapped_column(Moment)
    wipe_receipt: Mapped[Any | None] = mapped_column(Document)
    allocated_at: Mapped[When]
    released_at: Mapped[datetime | None] = mapped_column(Moment)
