"""What the HTTP of compute answers, field by field; the API's description is made from these shapes.

It leaves filling them to `api`.
"""

from typing_extensions import TypedDict

from hub.answers import NamedTexts, Texts
from hub.compute.meter_tables import MeterState
from hub.compute.tables import Device, HoldState, OfferState, RentalPurpose


class OfferPriceView(TypedDict):
    """A price per device time, with the same for an hour (fen) and a second (millionths of a fen)."""

    price_version_id: str
    amount_fen: int
    per_device_ms: int
    hour_fen: int
    device_second_ufen: int


class ProviderRecord(TypedDict):
    """A provider's rentals that ended and reports that came, and how many went wrong."""

    ended: int
    ended_by_provider_fault: int
    reports: int
    doubtful_reports: int


class OfferRow(TypedDict):
    """An offer as the list compares it."""

    id: str
    state: OfferState
    title: Texts
    provider: NamedTexts
    accelerator: str
    count: int
    memory_gib: int
    region: Texts
    via_city_platform: bool
    device: Device
    cpu_threads: int
    tokens_per_s: int
    price: OfferPriceView
    available: int
    free: int
    reliability: ProviderRecord
    valid_until: str | None


class Offers(TypedDict):
    """Offers."""

    offers: list[OfferRow]


class OfferStateView(TypedDict):
    """An offer's id and what became of it."""

    id: str
    state: OfferState


class ProviderView(TypedDict):
    """A provider with its organisation."""

    id: str
    organisation_id: str
    name: Texts


class Providers(TypedDict):
    """Providers, oldest first."""

    providers: list[ProviderView]


class RentalView(TypedDict):
    """A rental; times in device milliseconds."""

    id: str
    offer_id: str
    purpose: RentalPurpose
    run_id: str | None
    set_id: str | None
    order_id: str | None
    organisation_id: str
    provider_organisation_id: str
    limit_ms: int | None
    meter_seq: int
    fault: str | None
    state: HoldState
    allocation_epoch: int
    device_ms: int
    allocated_at: str
    released_at: str | None


class Rentals(TypedDict):
    """Rentals, newest first."""

    rentals: list[RentalView]


class MeterKeyView(TypedDict):
    """A provider's meter key, shown this once."""

    provider_id: str
    number: int
    key: str


class MeterView(TypedDict):
    """A report of device time as it came and as it was judged; `rule` and `reason` say what doubts it."""

    id: str
    rental_id: str
    seq: int
    device_id: str
    device_ms: int
    counted_ms: int | None
    observed_at: str
    received_at: str
    signature: str
    state: MeterState
    rule: str | None
    reason: Texts | None
    resolved_by: str | None
    resolved_at: str | None
    resolution: str | None


class Meters(TypedDict):
    """A page of reports; `next_after` opens the next one, null on the last."""

    items: list[MeterView]
    next_after: str | None
