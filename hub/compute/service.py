"""Providers and offers: the only writer of what is for rent.

It leaves publishing a price to the caller, holding devices to `hub.compute.allocation`, and bills to orders.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.compute import rules
from hub.compute.allocation import NoCapacityError, allocate, count_free, meter_rental, release
from hub.compute.rules import OfferFilter, OfferPrice
from hub.compute.tables import Device, Offer, OfferState, Provider, Rental
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.organisations.tables import Organisation

__all__ = [
    "NoCapacityError",
    "allocate",
    "count_free",
    "create_offer",
    "ensure_provider",
    "find_offer",
    "find_provider",
    "list_offers",
    "list_providers",
    "meter_rental",
    "release",
    "withdraw_offer",
]


def ensure_provider(
    session: Session, actor: Actor, *, organisation_id: str, name_zh: str, name_en: str, now: datetime
) -> Provider:
    """Return the organisation's provider row, made on first use.

    Raises:
        ForbiddenError: neither operator nor a provider speaking for itself.
        NotFoundError: no such organisation.
    """
    _require_own(actor, organisation_id)
    found = session.scalar(select(Provider).where(Provider.organisation_id == organisation_id))
    if found is not None:
        return found
    if session.get(Organisation, organisation_id) is None:
        raise NotFoundError.of("organisation", organisation_id)
    provider = Provider(
        id=new_id("prv"),
        organisation_id=organisation_id,
        name_zh=name_zh,
        name_en=name_en,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(provider)
    session.flush()
    return provider


def create_offer(
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
    price: OfferPrice,
    tokens_per_s: int,
    now: datetime,
    count: int = 1,
    memory_gib: int = 8,
    device: Device = Device.CPU,
    cpu_threads: int = 1,
    available: int = 1,
    valid_until: datetime | None = None,
) -> Offer:
    """Put devices up for rent at a published price.

    Raises:
        ForbiddenError, NotFoundError, InvalidValueError.
    """
    provider = find_provider(session, provider_id)
    _require_own(actor, provider.organisation_id)
    _require_positive(
        amount_fen=price.amount_fen,
        count=count,
        memory_gib=memory_gib,
        cpu_threads=cpu_threads,
        available=available,
        tokens_per_s=tokens_per_s,
    )
    offer = Offer(
        id=new_id("off"),
        organisation_id=provider.organisation_id,
        provider_id=provider.id,
        state=OfferState.OPEN,
        title_zh=title_zh,
        title_en=title_en,
        accelerator=accelerator,
        count=count,
        memory_gib=memory_gib,
        region_zh=region_zh,
        region_en=region_en,
        via_city_platform=via_city_platform,
        device=device,
        cpu_threads=cpu_threads,
        tokens_per_s=tokens_per_s,
        price_version_id=price.price_version_id,
        amount_fen=price.amount_fen,
        per_units=price.per_units,
        available=available,
        allocation_epoch=0,
        valid_until=valid_until,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(offer)
    session.flush()
    _record(session, "offer.created", offer, actor, now)
    return offer


def find_provider(session: Session, provider_id: str) -> Provider:
    """Return one provider. Raises: NotFoundError."""
    provider = session.get(Provider, provider_id)
    if provider is None:
        raise NotFoundError.of("provider", provider_id)
    return provider


def withdraw_offer(session: Session, actor: Actor, offer_id: str, *, now: datetime) -> Offer:
    """Take an offer off the market; again changes nothing. Running rentals finish. Raises: NotFoundError."""
    offer = session.get(Offer, offer_id, with_for_update=True)
    if offer is None:
        raise NotFoundError.of("offer", offer_id)
    _require_own(actor, offer.organisation_id)
    if offer.state is not OfferState.WITHDRAWN:
        offer.state = OfferState.WITHDRAWN
        _record(session, "offer.withdrawn", offer, actor, now)
    return offer


def pause_offer(session: Session, actor: Actor, offer_id: str, *, paused: bool, now: datetime) -> Offer:
    """Let an own offer take no new rental for a while, or again; the same again changes nothing.

    Raises:
        NotFoundError: no such offer, or another provider's. ConflictError: it was withdrawn.
    """
    offer = session.get(Offer, offer_id, with_for_update=True)
    if offer is None:
        raise NotFoundError.of("offer", offer_id)
    _require_own(actor, offer.organisation_id)
    if offer.state is OfferState.WITHDRAWN:
        raise ConflictError(
            f"Offer '{offer.id}' was withdrawn; publish a new one.", f"报价“{offer.id}”已下架，请发布新报价。"
        )
    wanted = OfferState.PAUSED if paused else OfferState.OPEN
    if offer.state is not wanted:
        offer.state = wanted
        _record(session, "offer.paused" if paused else "offer.resumed", offer, actor, now)
    return offer


def find_offer(session: Session, offer_id: str) -> Offer:
    """Return one offer, open or not. Raises: NotFoundError."""
    offer = session.get(Offer, offer_id)
    if offer is None:
        raise NotFoundError.of("offer", offer_id)
    return offer


def list_offers(session: Session, wanted: OfferFilter, *, now: datetime) -> list[tuple[Offer, Provider]]:
    """Return open offers with their providers, cheapest hour first."""
    statement = (
        select(Offer, Provider)
        .join(Provider, Provider.id == Offer.provider_id)
        .where(Offer.state == OfferState.OPEN, (Offer.valid_until.is_(None)) | (Offer.valid_until > now))
    )
    if wanted.via_city_platform is not None:
        statement = statement.where(Offer.via_city_platform == wanted.via_city_platform)
    if wanted.min_memory_gib is not None:
        statement = statement.where(Offer.memory_gib >= wanted.min_memory_gib)
    found = [
        (offer, provider)
        for offer, provider in session.execute(statement)
        if rules.matches(
            wanted,
            accelerator=offer.accelerator,
            regions=(offer.region_zh, offer.region_en),
            hour_price_fen=rules.hour_fen(offer.amount_fen, offer.per_units),
        )
    ]
    return sorted(found, key=lambda row: (rules.hour_fen(row[0].amount_fen, row[0].per_units), row[0].id))


def list_providers(session: Session) -> list[Provider]:
    """Return all providers by id, oldest first."""
    return list(session.scalars(select(Provider).order_by(Provider.id)))


def _require_own(actor: Actor, organisation_id: str) -> None:
    actor.require(Role.PROVIDER, Role.OPERATOR)
    if actor.role is Role.PROVIDER and actor.organisation_id != organisation_id:
        raise NotFoundError.of("provider", organisation_id)


def _require_positive(**values: int) -> None:
    for field, value in values.items():
        if value < 1:
            raise InvalidValueError(
                f"{field} is {value}; the least is 1. Give a whole number of 1 or more.",
                f"{field} 为 {value}，至少为 1。请填写不小于 1 的整数。",
                field=field,
            )


def _record(session: Session, topic: str, offer: Offer, actor: Actor, now: datetime) -> None:
    record_event(
        session,
        topic,
        offer.id,
        organisation_id=offer.organisation_id,
        actor_id=actor.user_id,
        now=now,
        price_version_id=offer.price_version_id,
        via_city_platform=offer.via_city_platform,
    )


def may_read_rental(actor: Actor, rental: Rental) -> bool:
    """Return whether a rental is the actor's to see: the firm that pays, its provider, operator and auditor."""
    return actor.organisation_id in (rental.organisation_id, rental.provider_organisation_id) or actor.reads_all
