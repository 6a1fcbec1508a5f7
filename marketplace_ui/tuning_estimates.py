"""What a planned run would cost on each open offer, and which vouchers pay for a tuning of a base.

It leaves the binding figures to the quote (`hub.orders.quotes`), which pins prices, rules and filing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.compute.rules import OfferFilter, hour_fen
from hub.compute.service import find_offer, list_offers
from hub.compute.tables import Offer, Provider
from hub.orders.tables import Quote
from hub.prices.rules import fee_fen
from hub.prices.service import default_price
from hub.prices.tables import Meter, PriceSubject, PriceVersion
from hub.tuning.speeds import Estimate, estimate_time, read_speeds
from hub.tuning.tables import Run
from hub.vouchers.service import CoverAnswer, LineToCover, find_cover, list_programmes
from hub.vouchers.tables import RuleVersion
from marketplace_ui.layout import translate

SAMPLE_FEN = 1_000_000
"""Amount on which a share is shown before anything is planned."""


@dataclass(frozen=True)
class OfferEstimate:
    """One offer for one run: its time at most, list price and what vouchers pay of it, in fen."""

    offer: Offer
    provider: Provider
    hour_fen: int
    time: Estimate
    list_fen: int
    voucher_fen: int

    @property
    def own_fen(self) -> int:
        """What the firm would pay itself at most."""
        return self.list_fen - self.voucher_fen


@dataclass(frozen=True)
class CoverHint:
    """Whether vouchers pay for tuning a base: programme with share, else the reasons why none does."""

    title: str = ""
    share: tuple[int, int] | None = None
    reasons: list[str] = field(default_factory=list)


def estimate_offers(session: Session, actor: Actor, run: Run, *, filed: bool, now: datetime) -> list[OfferEstimate]:
    """Return the open offers with their estimates, least own money first; empty before the plan."""
    if run.plan is None:
        return []
    tuning = default_price(session, PriceSubject.TUNING, now)
    speeds = read_speeds(session, as_of=now, base_version_id=run.base_version_id)
    found = [
        _estimate(
            session,
            actor,
            run,
            (offer, provider),
            time=estimate_time(run.plan, offer, speeds.get(offer.id)),
            tuning=tuning,
            filed=filed,
            now=now,
        )
        for offer, provider in list_offers(session, OfferFilter(), now=now)
    ]
    return sorted(found, key=lambda row: (row.own_fen, row.list_fen, row.offer.id))


def explain_quote(session: Session, run: Run, quote: Quote) -> Estimate | None:
    """Return by which speed the device time of a quote was estimated, as known then; None where that cannot be told."""
    if run.plan is None:
        return None
    offer = find_offer(session, quote.offer_id)
    speeds = read_speeds(session, as_of=quote.created_at, base_version_id=run.base_version_id)
    found = estimate_time(run.plan, offer, speeds.get(offer.id))
    return found if found.device_ms == quote.device_ms else None


def hint_cover(session: Session, actor: Actor, *, filed: bool, now: datetime) -> CoverHint:
    """Return which voucher pays the tuning service on a base with or without a valid filing."""
    seller = default_price(session, PriceSubject.TUNING, now).organisation_id
    asked = LineToCover(actor.organisation_id, Meter.TRAINED_TOKENS, SAMPLE_FEN, filed, False, seller)
    answer = find_cover(session, asked, now)
    if answer.covers:
        cover = answer.covers[0]
        return CoverHint(name_programmes(session)[cover.programme], (cover.share_num, cover.share_den))
    return CoverHint(reasons=list(dict.fromkeys(translate(item.zh, item.en) for item in answer.refusals)))


def name_programmes(session: Session) -> dict[str, str]:
    """Return the titles of the programmes by code, in the request's language."""
    return {found.code: translate(found.title_zh, found.title_en) for found in list_programmes(session)}


def number_rules(session: Session) -> dict[str, int]:
    """Return the numbers of rule versions by id."""
    return {rule_id: number for rule_id, number in session.execute(select(RuleVersion.id, RuleVersion.number))}


def _estimate(
    session: Session,
    actor: Actor,
    run: Run,
    found: tuple[Offer, Provider],
    *,
    time: Estimate,
    tuning: PriceVersion,
    filed: bool,
    now: datetime,
) -> OfferEstimate:
    offer, provider = found
    rental_fen = fee_fen(time.device_ms, offer.amount_fen, offer.per_units)
    service_fen = _fee_of(tuning, Meter.TRAINED_TOKENS, (run.plan or {})["tokens"])
    rental = LineToCover(
        actor.organisation_id, Meter.DEVICE_MS, rental_fen, filed, offer.via_city_platform, offer.organisation_id
    )
    first = find_cover(session, rental, now)
    service = LineToCover(
        actor.organisation_id,
        Meter.TRAINED_TOKENS,
        service_fen,
        filed,
        False,
        tuning.organisation_id,
        reserved=_reserve(first),
    )
    covered = [cover.amount_fen for answer in (first, find_cover(session, service, now)) for cover in answer.covers]
    hour = hour_fen(offer.amount_fen, offer.per_units)
    return OfferEstimate(offer, provider, hour, time, rental_fen + service_fen, sum(covered))


def _fee_of(price: PriceVersion, meter: Meter, quantity: int) -> int:
    line = next(line for line in price.lines if line.meter is meter)
    return fee_fen(quantity, line.amount_fen, line.per_units)


def _reserve(answer: CoverAnswer) -> Mapping[str, int]:
    return {cover.grant_id: cover.amount_fen for cover in answer.covers}
