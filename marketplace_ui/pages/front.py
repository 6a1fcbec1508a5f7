"""The front page: what this is, the three steps, counts of real records, models to begin with."""

from dataclasses import dataclass

from flask import Blueprint, render_template
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.service import SearchFilters, search_models
from hub.catalogue.tables import ModelKind
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.filings.service import StandingState
from hub.metering.tables import Usage
from hub.organisations.tables import Organisation, OrganisationState
from hub.web import context, find_actor
from marketplace_ui.cards import make_cards

blueprint = Blueprint("front", __name__)
FEATURED = 6


@dataclass(frozen=True)
class Counts:
    """What the marketplace holds now, counted from its records."""

    models: int
    filed_bases: int
    adapters: int
    offers: int
    organisations: int
    calls: int


@blueprint.get("/")
def show_front() -> str:
    actor, now = find_actor(), context().clock()
    with context().sessions.read() as session:
        found = search_models(session, None, text="", filters=SearchFilters(), limit=FEATURED, cursor=None, now=now)
        return render_template(
            "front/front.html",
            cards=make_cards(session, found.items, now),
            counts=_count(session),
            signed_in=actor is not None,
        )


def _count(session: Session) -> Counts:
    def models(**filters: object) -> int:
        wanted = SearchFilters(**filters)  # type: ignore[arg-type]
        now = context().clock()
        return search_models(session, None, text="", filters=wanted, limit=1, cursor=None, now=now).total

    firms = select(func.count()).where(Organisation.state == OrganisationState.VERIFIED)
    return Counts(
        models=models(),
        filed_bases=models(kind=ModelKind.BASE, filing=StandingState.VALID),
        adapters=models(kind=ModelKind.ADAPTER),
        offers=len(list_offers(session, OfferFilter(), now=context().clock())),
        organisations=session.scalar(firms) or 0,
        calls=session.scalar(select(func.count()).select_from(Usage)) or 0,
    )
