"""A firm's rentals: what runs, the provider's meter as it came, more time, and the end.

It leaves choosing an offer to the offers page and rules to `hub.orders`.
"""

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor
from hub.compute.meter_review import list_meters
from hub.compute.rules import HOUR_MS
from hub.compute.tables import Offer, Rental, RentalPurpose
from hub.errors import NotFoundError
from hub.ids import new_id
from hub.orders.rentals import end_rental, ends_at, extend_rental, list_rental_orders
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import BUYERS, read_notice

blueprint = Blueprint("rentals", __name__)
PAGE = 50
NOTICES = {
    "rented": ("租用已开始，资金已冻结。", "The rental runs; its money is held."),
    "extended": ("已续租，追加资金已冻结。", "The rental is longer; the money for it is held."),
    "ended": ("租用已结束，按实际计量结算。", "The rental is over and settled on what was metered."),
}


@blueprint.get("/rentals")
def show_rentals() -> str:
    actor = current_actor()
    actor.require(*BUYERS)
    with context().sessions.read() as session:
        query = select(Rental, Offer).join(Offer, Offer.id == Rental.offer_id)
        query = query.where(Rental.organisation_id == actor.organisation_id, Rental.purpose == RentalPurpose.CUSTOMER)
        rows = [(rental, offer) for rental, offer in session.execute(query.order_by(Rental.id.desc()).limit(200))]
        return render_template("offers/rentals.html", rows=rows, ends_at=ends_at, now=context().clock())


@blueprint.get("/rentals/<rental_id>")
def show_rental(rental_id: str) -> str:
    return _show(rental_id, Form())


@blueprint.post("/rentals/<rental_id>/extend")
def extend(rental_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    hours = form.whole("hours", most=744)
    key = form.text("idempotency_key", required=True, most=200)
    if hours is None:
        form.refuse("hours", "请填写整数小时。", "Give whole hours.")
    with form.catching("hours"):
        if form.ok and hours is not None:
            with context().sessions.write() as session:
                extend_rental(
                    session,
                    actor,
                    rental_id,
                    device_ms=hours * HOUR_MS,
                    idempotency_key=key,
                    now=context().clock(),
                )
    return redirect(f"/rentals/{rental_id}?done=extended") if form.ok else (_show(rental_id, form), 422)


@blueprint.post("/rentals/<rental_id>/end")
def end(rental_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        end_rental(session, actor, rental_id, now=context().clock())
    return redirect(f"/rentals/{rental_id}?done=ended")


def _show(rental_id: str, form: Form) -> str:
    actor = current_actor()
    with context().sessions.read() as session:
        rental = _find(session, actor, rental_id)
        records = list_meters(session, rental_id=rental.id, after=request.args.get("after", ""), limit=PAGE + 1)
        return render_template(
            "offers/rental.html",
            form=form,
            rental=rental,
            offer=session.get_one(Offer, rental.offer_id),
            orders=list_rental_orders(session, rental.id) if actor.may_read(rental.organisation_id) else [],
            records=records[:PAGE],
            following=records[PAGE - 1].id if len(records) > PAGE else "",
            ends_at=ends_at(rental),
            owns=rental.organisation_id == actor.organisation_id and actor.role in BUYERS,
            key=new_id("idem"),
            notice=read_notice(NOTICES),
        )


def _find(session: Session, actor: Actor, rental_id: str) -> Rental:
    rental = session.get(Rental, rental_id)
    own = rental is not None and actor.organisation_id in (rental.organisation_id, rental.provider_organisation_id)
    wide = actor.reads_all
    if rental is None or rental.purpose is not RentalPurpose.CUSTOMER or not (own or wide):
        raise NotFoundError.of("rental", rental_id)
    return rental
