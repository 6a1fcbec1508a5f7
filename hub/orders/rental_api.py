"""HTTP of rentals: estimate, rent, extend, end, and decide on quarantined device time.

It leaves browsing offers and taking reports to `hub.compute`.
"""

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from hub.compute.answers import MeterView, RentalView
from hub.compute.api import present_rental
from hub.compute.meter_api import RentalPath, present_meter
from hub.compute.service import find_offer, may_read_rental
from hub.compute.tables import Rental, RentalPurpose
from hub.errors import NotFoundError
from hub.orders.answers import RentalEstimate, RentalWithOrders
from hub.orders.present import present_line, present_order
from hub.orders.rental_quotes import estimate_rental
from hub.orders.rentals import (
    decide_meter,
    end_rental,
    ends_at,
    extend_rental,
    fail_rental,
    list_rental_orders,
    rent_offer,
)
from hub.web import Body, Query, context, current_actor


class RentedOfferPath(Query):
    """One offer."""

    offer_id: str


class MeterPath(Query):
    """One report of device time."""

    record_id: str


class EstimateQuery(Query):
    """How much device time; an hour when left out."""

    device_ms: int = 3_600_000


class RentBody(Body):
    """`device_ms` at most; `idempotency_key` is the client's own, the same on a retry."""

    offer_id: str
    device_ms: int
    idempotency_key: str
    cost_centre: str | None = Field(None, max_length=100)


class ExtendBody(Body):
    """`device_ms` more, by a supplementary hold."""

    device_ms: int
    idempotency_key: str


class FailBody(Body):
    """Whose fault (provider, platform) and what happened."""

    fault: str
    reason: str = Field(max_length=500)


class MeterDecisionBody(Body):
    """What the operator decides; `device_ms` (cumulative) where it counts for less than reported."""

    decision: str = Field(pattern="^(accept|reject)$")
    reason: str = Field(max_length=500)
    device_ms: int | None = None


def register_rentals(blueprint: APIBlueprint) -> None:
    """Add the endpoints of rentals to the room's blueprint."""
    blueprint.get("/api/v1/offers/<offer_id>/estimate")(estimate_rent)
    blueprint.post("/api/v1/rentals")(post_rental)
    blueprint.get("/api/v1/rentals/<rental_id>")(read_rental)
    blueprint.post("/api/v1/rentals/<rental_id>/extend")(post_extension)
    blueprint.post("/api/v1/rentals/<rental_id>/end")(post_end)
    blueprint.post("/api/v1/rentals/<rental_id>/fail")(post_failure)
    blueprint.post("/api/v1/meters/<record_id>/decision")(decide_on_meter)


def estimate_rent(path: RentedOfferPath, query: EstimateQuery) -> RentalEstimate:
    """Return what device time of an offer costs this firm now, and what its vouchers would pay."""
    actor = current_actor()
    with context().sessions.read() as session:
        offer = find_offer(session, path.offer_id)
        quote = estimate_rental(session, actor, offer, device_ms=query.device_ms, now=context().clock())
        return {
            "device_ms": quote.device_ms,
            "list_fen": quote.list_fen,
            "voucher_fen": quote.voucher_fen,
            "self_paid_fen": quote.self_paid_fen,
            "lines": [present_line(line) for line in quote.lines],
        }


def post_rental(body: RentBody) -> tuple[RentalView, int]:
    """Rent an offer: money held and devices allocated together, or nothing."""
    actor = current_actor()
    with context().sessions.write() as session:
        rental = rent_offer(session, actor, **body.model_dump(), now=context().clock())
        return present_rental(rental), 201


def read_rental(path: RentalPath) -> RentalWithOrders:
    """Return a rental with its orders: for the firm, its provider, operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        rental = session.get(Rental, path.rental_id)
        if rental is None or rental.purpose is not RentalPurpose.CUSTOMER or not may_read_rental(actor, rental):
            raise NotFoundError.of("rental", path.rental_id)
        orders = list_rental_orders(session, rental.id) if actor.may_read(rental.organisation_id) else []
        shown = [present_order(order) for order in orders]
        return {**present_rental(rental), "ends_at": ends_at(rental).isoformat(), "orders": shown}


def post_extension(path: RentalPath, body: ExtendBody) -> RentalView:
    """Add time to a running rental."""
    actor = current_actor()
    with context().sessions.write() as session:
        rental = extend_rental(session, actor, path.rental_id, **body.model_dump(), now=context().clock())
        return present_rental(rental)


def post_end(path: RentalPath) -> RentalView:
    """End a rental and settle it on the time counted so far."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_rental(end_rental(session, actor, path.rental_id, now=context().clock()))


def post_failure(path: RentalPath, body: FailBody) -> RentalView:
    """End a rental that went wrong and refund it in full (its provider, operator)."""
    actor = current_actor()
    with context().sessions.write() as session:
        rental = fail_rental(
            session, actor, path.rental_id, fault=body.fault, reason=body.reason, now=context().clock()
        )
        return present_rental(rental)


def decide_on_meter(path: MeterPath, body: MeterDecisionBody) -> MeterView:
    """Accept or reject a quarantined report (operator); a settled bill is corrected by what now counts."""
    actor = current_actor()
    with context().sessions.write() as session:
        record = decide_meter(
            session,
            actor,
            path.record_id,
            accept=body.decision == "accept",
            reason=body.reason,
            device_ms=body.device_ms,
            now=context().clock(),
        )
        return present_meter(record)
