"""HTTP of compute: browse and compare offers, register as a provider, withdraw, list rentals.

Publishing an offer together with its price is in `hub.tuning.offers`, because prices stand beside this room; renting
is in `hub.orders`, reports of device time in `meter_api`.
"""

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.compute import service
from hub.compute.answers import (
    OfferRow,
    Offers,
    OfferStateView,
    Providers,
    ProviderView,
    Rentals,
    RentalView,
)
from hub.compute.market import OfferView, compare_offers, view_offer
from hub.compute.meter_api import register_meters
from hub.compute.rules import OfferFilter, OfferSort
from hub.compute.tables import HoldState, Offer, Provider, Rental
from hub.errors import NotFoundError
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("compute", __name__, url_prefix="/api/v1")
register_meters(blueprint)


class RentalQuery(Query):
    """Rentals in one state; all of them when left out."""

    state: HoldState | None = None


class OfferQuery(Query):
    """Filters of the offer list; leave out what does not matter. `sort`: price, memory, speed, free, reliability."""

    accelerator: str = ""
    region: str = ""
    via_city_platform: bool | None = None
    max_hour_fen: int | None = Field(None, ge=0)
    min_memory_gib: int | None = Field(None, ge=0)
    free_only: bool = False
    sort: OfferSort = OfferSort.PRICE


class OfferPath(Query):
    """One offer."""

    offer_id: str


class ProviderPath(Query):
    """One provider."""

    provider_id: str


class ProviderBody(Body):
    """A provider's names; `organisation_id` only where an operator registers somebody else."""

    name_zh: str
    name_en: str
    organisation_id: str | None = None


def present_offer(session: Session, offer: Offer, provider: Provider) -> OfferRow:
    """Return an offer as JSON values; prices in fen."""
    return present_view(view_offer(session, offer))


def present_view(view: OfferView) -> OfferRow:
    """Return an offer as the list compares it, as JSON values; prices in fen and µfen."""
    offer, provider, record = view.offer, view.provider, view.reliability
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
            "hour_fen": view.hour_fen,
            "device_second_ufen": view.second_ufen,
        },
        "available": offer.available,
        "free": view.free,
        "reliability": {
            "ended": record.ended,
            "ended_by_provider_fault": record.faulted,
            "reports": record.reports,
            "doubtful_reports": record.doubtful,
        },
        "valid_until": None if offer.valid_until is None else offer.valid_until.isoformat(),
    }


@blueprint.get("/offers")
def get_offers(query: OfferQuery) -> Offers:
    """Return the open offers that match, cheapest hour first where no other order is asked for."""
    wanted = OfferFilter(**query.model_dump(exclude={"sort"}))
    with context().sessions.read() as session:
        found = compare_offers(session, wanted, now=context().clock(), sort=query.sort)
        return {"offers": [present_view(view) for view in found]}


@blueprint.get("/offers/<offer_id>")
def get_offer(path: OfferPath) -> OfferRow:
    """Return one offer."""
    with context().sessions.read() as session:
        offer = service.find_offer(session, path.offer_id)
        return present_offer(session, offer, session.get_one(Provider, offer.provider_id))


@blueprint.delete("/offers/<offer_id>")
def delete_offer(path: OfferPath) -> OfferStateView:
    """Withdraw an offer of one's own."""
    actor = current_actor()
    with context().sessions.write() as session:
        offer = service.withdraw_offer(session, actor, path.offer_id, now=context().clock())
        return {"id": offer.id, "state": offer.state}


@blueprint.post("/offers/<offer_id>/pause")
def pause_offer(path: OfferPath) -> OfferStateView:
    """Let an own offer take no new rental for a while."""
    return _set_paused(path.offer_id, paused=True)


@blueprint.post("/offers/<offer_id>/resume")
def resume_offer(path: OfferPath) -> OfferStateView:
    """Let a paused offer take rentals again."""
    return _set_paused(path.offer_id, paused=False)


def _set_paused(offer_id: str, *, paused: bool) -> OfferStateView:
    actor = current_actor()
    with context().sessions.write() as session:
        offer = service.pause_offer(session, actor, offer_id, paused=paused, now=context().clock())
        return {"id": offer.id, "state": offer.state}


@blueprint.get("/providers")
def get_providers() -> Providers:
    """Return the providers."""
    with context().sessions.read() as session:
        return {"providers": [_present_provider(provider) for provider in service.list_providers(session)]}


@blueprint.get("/providers/<provider_id>/offers")
def get_provider_offers(path: ProviderPath) -> Offers:
    """Return all offers of a provider, paused and withdrawn ones too (itself, operator, auditor), newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        provider = service.find_provider(session, path.provider_id)
        if not actor.may_read(provider.organisation_id):
            raise NotFoundError.of("provider", path.provider_id)
        query = select(Offer).where(Offer.provider_id == provider.id).order_by(Offer.id.desc()).limit(200)
        return {"offers": [present_offer(session, offer, provider) for offer in session.scalars(query)]}


@blueprint.post("/providers")
def post_provider(body: ProviderBody) -> ProviderView:
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
def get_rentals(query: RentalQuery) -> Rentals:
    """Return what the caller's organisation rents or rents out, newest first; all for operator and auditor."""
    actor = current_actor()
    statement = select(Rental).order_by(Rental.id.desc())
    if query.state is not None:
        statement = statement.where(Rental.state == query.state)
    if not actor.reads_all:
        own = actor.organisation_id
        statement = statement.where(or_(Rental.organisation_id == own, Rental.provider_organisation_id == own))
    with context().sessions.read() as session:
        return {"rentals": [present_rental(rental) for rental in session.scalars(statement.limit(200))]}


def _present_provider(provider: Provider) -> ProviderView:
    return {
        "id": provider.id,
        "organisation_id": provider.organisation_id,
        "name": {"zh": provider.name_zh, "en": provider.name_en},
    }


def present_rental(rental: Rental) -> RentalView:
    """Return a rental as JSON values; times in device milliseconds."""
    return {
        "id": rental.id,
        "offer_id": rental.offer_id,
        "purpose": rental.purpose,
        "run_id": rental.run_id,
        "set_id": rental.set_id,
        "order_id": rental.order_id,
        "organisation_id": rental.organisation_id,
        "provider_organisation_id": rental.provider_organisation_id,
        "limit_ms": rental.limit_ms,
        "meter_seq": rental.meter_seq,
        "fault": rental.fault,
        "state": rental.state,
        "allocation_epoch": rental.allocation_epoch,
        "device_ms": rental.device_ms,
        "allocated_at": rental.allocated_at.isoformat(),
        "released_at": None if rental.released_at is None else rental.released_at.isoformat(),
    }
