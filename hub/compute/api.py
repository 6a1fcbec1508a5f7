"""HTTP of compute: browse offers, register as a provider, withdraw, list own rentals.

Publishing an offer together with its price is in `hub.tuning.offers`, because prices stand beside this room.
"""

from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute import service
from hub.compute.rules import OfferFilter, hour_fen
from hub.compute.tables import Offer, Provider, Rental
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("compute", __name__, url_prefix="/api/v1")


class OfferQuery(Query):
    """Filters of the offer list; leave out what does not matter."""

    accelerator: str = ""
    region: str = ""
    via_city_platform: bool | None = None
    max_hour_fen: int | None = None


class OfferPath(Query):
    """One offer."""

    offer_id: str


class ProviderBody(Body):
    """A provider's names; `organisation_id` only where an operator registers somebody else."""

    name_zh: str
    name_en: str
    organisation_id: str | None = None


def present_offer(session: Session, offer: Offer, provider: Provider) -> dict[str, Any]:
    """Return an offer as JSON values; prices in fen."""
    return {
        "id": offer.id,
        "state": offer.state,
        "title": {"zh": offer.title_zh, "en": offer.title_en},
        "provider": {"id": provider.id, "zh": provider.name_zh, "en": provider.name_en},
        "accelerator": offer.accelerator,
        "count": offer.count,
        "memory_gib": offer.memory_gib,
        "region": {"zh": offer.region_zh, "en": offer.region_en},
        "via_city_platform": offer.via_city_platform,
        "device": offer.device,
        "cpu_threads": offer.cpu_threads,
        "tokens_per_s": offer.tokens_per_s,
        "price": {
            "price_version_id": offer.price_version_id,
            "amount_fen": offer.amount_fen,
            "per_device_ms": offer.per_units,
            "hour_fen": hour_fen(offer.amount_fen, offer.per_units),
        },
        "available": offer.available,
        "free": service.count_free(session, offer),
        "valid_until": None if offer.valid_until is None else offer.valid_until.isoformat(),
    }


@blueprint.get("/offers")
def get_offers(query: OfferQuery) -> dict[str, Any]:
    """Return the open offers that match, cheapest hour first."""
    with context().sessions.read() as session:
        found = service.list_offers(session, OfferFilter(**query.model_dump()), now=context().clock())
        return {"offers": [present_offer(session, offer, provider) for offer, provider in found]}


@blueprint.get("/offers/<offer_id>")
def get_offer(path: OfferPath) -> dict[str, Any]:
    """Return one offer."""
    with context().sessions.read() as session:
        offer = service.find_offer(session, path.offer_id)
        return present_offer(session, offer, session.get_one(Provider, offer.provider_id))


@blueprint.delete("/offers/<offer_id>")
def delete_offer(path: OfferPath) -> dict[str, Any]:
    """Withdraw an offer of one's own."""
    actor = current_actor()
    with context().sessions.write() as session:
        offer = service.withdraw_offer(session, actor, path.offer_id, now=context().clock())
        return {"id": offer.id, "state": offer.state}


@blueprint.get("/providers")
def get_providers() -> dict[str, Any]:
    """Return the providers."""
    with context().sessions.read() as session:
        return {"providers": [_present_provider(provider) for provider in service.list_providers(session)]}


@blueprint.post("/providers")
def post_provider(body: ProviderBody) -> dict[str, Any]:
    """Register an organisation as a provider; again returns the same."""
    actor = current_actor()
    with context().sessions.write() as session:
        provider = service.ensure_provider(
            session,
            actor,
            organisation_id=body.organisation_id or actor.organisation_id,
            name_zh=body.name_zh,
            name_en=body.name_en,
            now=context().clock(),
        )
        return _present_provider(provider)


@blueprint.get("/rentals")
def get_rentals() -> dict[str, Any]:
    """Return what the caller's organisation rents and rented, newest first."""
    actor = current_actor()
    statement = select(Rental).where(Rental.organisation_id == actor.organisation_id).order_by(Rental.id.desc())
    with context().sessions.read() as session:
        return {"rentals": [_present_rental(rental) for rental in session.scalars(statement.limit(200))]}


def _present_provider(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        "organisation_id": provider.organisation_id,
        "name": {"zh": provider.name_zh, "en": provider.name_en},
    }


def _present_rental(rental: Rental) -> dict[str, Any]:
    return {
        "id": rental.id,
        "offer_id": rental.offer_id,
        "purpose": rental.purpose,
        "run_id": rental.run_id,
        "set_id": rental.set_id,
        "state": rental.state,
        "allocation_epoch": rental.allocation_epoch,
        "device_ms": rental.device_ms,
        "allocated_at": rental.allocated_at.isoformat(),
        "released_at": None if rental.released_at is None else rental.released_at.isoformat(),
    }
