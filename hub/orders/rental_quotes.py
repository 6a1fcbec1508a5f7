"""Prices a rental before it is ordered: what it costs at most, what a voucher pays of it, what the firm pays itself.

It leaves placing it to `rentals`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.compute.tables import Offer
from hub.errors import InvalidValueError
from hub.ids import new_id
from hub.orders.quote_lines import build_lines
from hub.orders.quotes import VALID_FOR, add_up, check_quantities, keep_quote, rental_line, require_buyer
from hub.orders.tables import Quote, QuoteState

RENTAL = "rental"
LEAST_MS = 60_000
MOST_MS = 31 * 24 * 3_600_000


class RentalTimeError(InvalidValueError):
    """The time asked for is not one that is rented out."""

    code = "rental_time"


def quote_rental(session: Session, actor: Actor, offer: Offer, *, device_ms: int, subject: str, now: datetime) -> Quote:
    """Return the stored quote of device time of an offer for a rental (`subject`).

    Raises:
        RentalTimeError: less than a minute or more than 31 days.
    """
    require_buyer(actor)
    return keep_quote(session, _build(session, actor, offer, device_ms=device_ms, subject=subject, now=now))


def estimate_rental(session: Session, actor: Actor, offer: Offer, *, device_ms: int, now: datetime) -> Quote:
    """Return the quote that this firm would get now, kept nowhere. Raises: RentalTimeError."""
    quote = _build(session, actor, offer, device_ms=device_ms, subject="", now=now)
    add_up(quote)
    return quote


def _build(session: Session, actor: Actor, offer: Offer, *, device_ms: int, subject: str, now: datetime) -> Quote:
    check_quantities({"device_ms": device_ms})
    if not LEAST_MS <= device_ms <= MOST_MS:
        raise RentalTimeError(
            f"{device_ms} ms is not rented out; take {LEAST_MS} ms (a minute) to {MOST_MS} ms (31 days).",
            f"不能租用 {device_ms} 毫秒，可租 1 分钟至 31 天。",
            field="device_ms",
        )
    quote = Quote(
        id=new_id("quo"),
        organisation_id=actor.organisation_id,
        subject_kind=RENTAL,
        subject=subject,
        state=QuoteState.OPEN,
        filed=False,
        offer_id=offer.id,
        provider_organisation_id=offer.organisation_id,
        device_ms=device_ms,
        trained_tokens=0,
        created_by=actor.user_id,
        created_at=now,
        valid_until=now + VALID_FOR,
    )
    quote.lines = build_lines(session, quote, [rental_line(session, offer, device_ms)], now)
    return quote
