"""Offers side by side as a firm compares them: price of an hour and a second, what is free, the provider's record.

It leaves what a voucher would pay to orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from hub.compute.rules import OfferFilter, OfferSort, Reliability, hour_fen, second_ufen
from hub.compute.service import count_free, list_offers
from hub.compute.tables import HoldState, MeterRecord, Offer, Provider, Rental

PROVIDER_FAULT = "provider"


@dataclass(frozen=True)
class OfferView:
    """One offer with its prices in fen and µfen, how many rentals are free now, and its provider's record."""

    offer: Offer
    provider: Provider
    hour_fen: int
    second_ufen: int
    free: int
    reliability: Reliability


def compare_offers(
    session: Session, wanted: OfferFilter, *, now: datetime, sort: OfferSort = OfferSort.PRICE
) -> list[OfferView]:
    """Return the open offers that match, in the order asked for; equals stand by price, then by age."""
    found = list_offers(session, wanted, now=now)
    records = read_reliability(session, [offer.organisation_id for offer, _ in found])
    views = [
        OfferView(
            offer,
            provider,
            hour_fen(offer.amount_fen, offer.per_units),
            second_ufen(offer.amount_fen, offer.per_units),
            count_free(session, offer),
            records.get(offer.organisation_id, Reliability()),
        )
        for offer, provider in found
    ]
    kept = [view for view in views if view.free or not wanted.free_only]
    return sorted(kept, key=lambda view: _rank(view, sort))


def view_offer(session: Session, offer: Offer) -> OfferView:
    """Return one offer as the list shows it."""
    records = read_reliability(session, [offer.organisation_id])
    return OfferView(
        offer,
        session.get_one(Provider, offer.provider_id),
        hour_fen(offer.amount_fen, offer.per_units),
        second_ufen(offer.amount_fen, offer.per_units),
        count_free(session, offer),
        records.get(offer.organisation_id, Reliability()),
    )


def read_reliability(session: Session, provider_organisation_ids: Sequence[str]) -> dict[str, Reliability]:
    """Return the records of providers by organisation id, counted from rentals and reports."""
    wanted = sorted(set(provider_organisation_ids))
    faulted = func.sum(case((Rental.fault == PROVIDER_FAULT, 1), else_=0))
    ended = session.execute(
        select(Rental.provider_organisation_id, func.count(), faulted)
        .where(Rental.provider_organisation_id.in_(wanted), Rental.state == HoldState.RELEASED)
        .group_by(Rental.provider_organisation_id)
    )
    doubtful = func.sum(case((MeterRecord.code.is_not(None), 1), else_=0))
    reports = session.execute(
        select(MeterRecord.provider_organisation_id, func.count(), doubtful)
        .where(MeterRecord.provider_organisation_id.in_(wanted))
        .group_by(MeterRecord.provider_organisation_id)
    )
    counts: dict[str, list[int]] = {owner: [0, 0, 0, 0] for owner in wanted}
    for owner, count, bad in ended:
        counts[owner][0:2] = [int(count), int(bad or 0)]
    for owner, count, bad in reports:
        counts[owner][2:4] = [int(count), int(bad or 0)]
    return {owner: Reliability(*four) for owner, four in counts.items()}


def _rank(view: OfferView, sort: OfferSort) -> tuple[object, ...]:
    share = view.reliability.share
    first: dict[OfferSort, object] = {
        OfferSort.PRICE: view.hour_fen,
        OfferSort.MEMORY: -view.offer.memory_gib,
        OfferSort.SPEED: -view.offer.tokens_per_s,
        OfferSort.FREE: -view.free,
        OfferSort.RELIABILITY: 1 if share is None else -share,
    }
    return first[sort], view.hour_fen, view.offer.id
