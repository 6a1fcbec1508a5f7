"""Publishes an offer together with its price, in one transaction.

It stands here because prices and compute are rooms side by side that do not import each other.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.compute.rules import OfferPrice
from hub.compute.service import create_offer, find_provider
from hub.compute.tables import Device, Offer
from hub.prices.service import publish_price
from hub.prices.tables import Meter, PriceSubject


def publish_offer(
    session: Session,
    actor: Actor,
    *,
    provider_id: str,
    title_zh: str,
    title_en: str,
    accelerator: str,
    region_zh: str,
    region_en: str,
    via_city_platform: bool,
    amount_fen: int,
    per_device_ms: int,
    tokens_per_s: int,
    now: datetime,
    count: int = 1,
    memory_gib: int = 8,
    device: Device = Device.CPU,
    cpu_threads: int = 1,
    available: int = 1,
    valid_until: datetime | None = None,
) -> Offer:
    """Put devices up for rent at `amount_fen` per `per_device_ms` milliseconds.

    Raises:
        NotFoundError, ForbiddenError, PriceRefusedError, InvalidValueError.
    """
    provider = find_provider(session, provider_id)
    price = publish_price(
        session,
        actor,
        organisation_id=provider.organisation_id,
        subject_kind=PriceSubject.OFFER,
        subject=f"{provider.id}:{title_en}",
        lines={Meter.DEVICE_MS: (amount_fen, per_device_ms)},
        now=now,
    )
    return create_offer(
        session,
        actor,
        provider_id=provider_id,
        title_zh=title_zh,
        title_en=title_en,
        accelerator=accelerator,
        region_zh=region_zh,
        region_en=region_en,
        via_city_platform=via_city_platform,
        price=OfferPrice(price.id, amount_fen, per_device_ms),
        tokens_per_s=tokens_per_s,
        now=now,
        count=count,
        memory_gib=memory_gib,
        device=device,
        cpu_threads=cpu_threads,
        available=available,
        valid_until=valid_until,
    )
