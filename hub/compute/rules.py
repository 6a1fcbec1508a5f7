"""Pure rules of compute: price of an hour, estimate of device time, which offers match a filter.

It leaves rows and money to the services.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

HOUR_MS = 3_600_000


class OfferSort(StrEnum):
    """What stands first in a list of offers."""

    PRICE = "price"
    MEMORY = "memory"
    SPEED = "speed"
    FREE = "free"
    RELIABILITY = "reliability"


@dataclass(frozen=True)
class OfferPrice:
    """`amount_fen` for each `per_units` device milliseconds, as published under one price version."""

    price_version_id: str
    amount_fen: int
    per_units: int


@dataclass(frozen=True)
class OfferFilter:
    """What a customer looks for; None or empty is no wish. `accelerator` and `region` match any part of the text."""

    accelerator: str = ""
    region: str = ""
    via_city_platform: bool | None = None
    max_hour_fen: int | None = None
    min_memory_gib: int | None = None
    free_only: bool = False


@dataclass(frozen=True)
class Reliability:
    """A provider's record: rentals that ended, those that ended by its fault, reports of device time, doubtful ones."""

    ended: int = 0
    faulted: int = 0
    reports: int = 0
    doubtful: int = 0

    @property
    def share(self) -> Fraction | None:
        """The part of ended rentals without the provider's fault, None before the first."""
        return Fraction(self.ended - self.faulted, self.ended) if self.ended else None


def hour_fen(amount_fen: int, per_units: int) -> int:
    """Return the price of one device hour in fen, rounded up."""
    return -(-amount_fen * HOUR_MS // per_units)


def second_ufen(amount_fen: int, per_units: int) -> int:
    """Return the price of one device second in millionths of a fen, rounded up."""
    return -(-amount_fen * 1_000_000_000 // per_units)


def estimate_device_ms(tokens: int, tokens_per_s: int) -> int:
    """Return the device time that so many tokens take at a nominal speed, at least one second."""
    return max(1000, -(-tokens * 1000 // tokens_per_s))


def matches(wanted: OfferFilter, *, accelerator: str, regions: tuple[str, str], hour_price_fen: int) -> bool:
    """Return whether an offer meets the parts of a filter that are matched as text or price."""
    if wanted.accelerator.casefold() not in accelerator.casefold():
        return False
    if all(wanted.region.casefold() not in region.casefold() for region in regions):
        return False
    return wanted.max_hour_fen is None or hour_price_fen <= wanted.max_hour_fen
