"""Gathers what one model's page shows: card, filing, lineage, versions, price, what the caller may do.

It leaves the price after vouchers to `orders` and drawing to the pages.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.servability import Servability, may_serve
from hub.catalogue.tables import TUNABLE_KINDS, Model, ModelVersion
from hub.catalogue.versions import find_version, lineage_of, list_derivatives, list_versions, model_of, name_of
from hub.filings.service import Standing, find_decision, standing_of
from hub.filings.tables import DerivativeDecision
from hub.organisations.service import find_organisation
from hub.organisations.tables import Organisation
from hub.prices.service import DEFAULT, find_price, find_price_version
from hub.prices.tables import PriceSubject, PriceVersion


@dataclass(frozen=True)
class Link:
    """One step of a lineage or one derivative, with its public name `org/name@N`."""

    name: str
    version: ModelVersion


@dataclass(frozen=True, kw_only=True)
class ModelPage:
    """One model as its page shows it. `lineage` runs from the version up to the root base."""

    model: Model
    owner: Organisation
    version: ModelVersion
    versions: list[ModelVersion]
    standing: Standing
    decision: DerivativeDecision | None
    lineage: list[Link]
    derivatives: list[Link]
    price: PriceVersion | None
    servability: Servability | None
    can_fine_tune: bool


def read_page(session: Session, actor: Actor | None, name: str, now: datetime) -> ModelPage:
    """Return the page of `org/name` or `org/name@N`; `servability` is None for a stranger.

    Raises:
        NotFoundError: nothing of that name for this caller.
    """
    version = find_version(session, actor, name)
    model = model_of(session, version)
    chain = lineage_of(session, version)
    return ModelPage(
        model=model,
        owner=find_organisation(session, model.organisation_id),
        version=version,
        versions=list_versions(session, actor, model.name),
        standing=standing_of(session, chain[-1].weights_digest, now),
        decision=find_decision(session, version.id),
        lineage=[Link(name_of(session, link), link) for link in chain],
        derivatives=[Link(name_of(session, link), link) for link in list_derivatives(session, actor, version)],
        price=price_of(session, version, now),
        servability=may_serve(session, version, actor.organisation_id, now) if actor else None,
        can_fine_tune=version.kind in TUNABLE_KINDS,
    )


def price_of(session: Session, version: ModelVersion, now: datetime) -> PriceVersion | None:
    """Return the price of calls: the version's own, else the platform's for its kind, else None."""
    if version.price_version_id is not None:
        return find_price_version(session, version.price_version_id)
    kind = PriceSubject.BASE if version.base_version_id is None else PriceSubject.ADAPTER
    return find_price(session, kind, DEFAULT, now)
