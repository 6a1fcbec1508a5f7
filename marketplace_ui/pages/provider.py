"""A provider's desk: its offers, who rents them, the device time reported and doubted, its meter key.

It leaves earnings and payouts to their own page and the form of an offer to `offer_form`.
"""

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.compute.market import view_offer
from hub.compute.meter_api import DERIVED_FROM
from hub.compute.meter_review import list_meters
from hub.compute.metering import issue_meter_key
from hub.compute.service import pause_offer, withdraw_offer
from hub.compute.tables import MeterState, Offer, OfferState, Provider, Rental, RentalPurpose
from hub.orders.rentals import ends_at, fail_rental
from hub.payouts.service import earned
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice

blueprint = Blueprint("provider", __name__)
NOTICES = {
    "published": ("报价已发布，企业可见。", "The offer is published; firms see it."),
    "changed": ("新报价已发布，原报价已下架。", "The new offer is published and the old one withdrawn."),
    "paused": ("报价已暂停，不接受新租用。", "The offer is paused and takes no new rental."),
    "resumed": ("报价已恢复。", "The offer takes rentals again."),
    "withdrawn": ("报价已下架；进行中的租用照常完成。", "The offer is withdrawn; running rentals finish."),
    "failed": (
        "租用已因供应商故障结束，款项已全额退回企业。",
        "The rental ended by your fault and is refunded.",
    ),
}


@blueprint.get("/provider")
def show_provider() -> str:
    return _show(_require_provider(), Form(), "")


@blueprint.post("/provider/meter-key")
def make_key() -> str:
    actor = _require_provider()
    with context().sessions.write() as session:
        provider = session.scalars(select(Provider).where(Provider.organisation_id == actor.organisation_id)).one()
        _, key = issue_meter_key(
            session, actor, provider.id, secret=context().secrets[DERIVED_FROM], now=context().clock()
        )
    return _show(actor, Form(), key)


@blueprint.post("/provider/offers/<offer_id>/withdraw")
def withdraw(offer_id: str) -> Response:
    actor = _require_provider()
    with context().sessions.write() as session:
        withdraw_offer(session, actor, offer_id, now=context().clock())
    return redirect("/provider?done=withdrawn")


@blueprint.post("/provider/offers/<offer_id>/<any(pause,resume):step>")
def pause(offer_id: str, step: str) -> Response:
    actor = _require_provider()
    with context().sessions.write() as session:
        pause_offer(session, actor, offer_id, paused=step == "pause", now=context().clock())
    return redirect(f"/provider?done={step}d")


@blueprint.post("/provider/rentals/<rental_id>/fail")
def fail(rental_id: str) -> Response | tuple[str, int]:
    actor, form = _require_provider(), Form.of_request()
    reason = form.text("reason", required=True, most=500)
    with form.catching("reason"):
        if form.ok:
            with context().sessions.write() as session:
                fail_rental(session, actor, rental_id, fault="provider", reason=reason, now=context().clock())
    return redirect("/provider?done=failed") if form.ok else (_show(actor, form, ""), 422)


def _require_provider() -> Actor:
    actor = current_actor()
    actor.require(Role.PROVIDER)
    return actor


def _show(actor: Actor, form: Form, key: str) -> str:
    owner = actor.organisation_id
    with context().sessions.read() as session:
        offers = session.scalars(select(Offer).where(Offer.organisation_id == owner).order_by(Offer.id.desc())).all()
        available, on_its_way = earned(session, owner)
        return render_template(
            "offers/provider.html",
            form=form,
            key=key,
            provider=session.scalar(select(Provider).where(Provider.organisation_id == owner)),
            offers=[view_offer(session, offer) for offer in offers],
            open_state=OfferState.OPEN,
            rentals=_list_rentals(session, owner),
            ends_at=ends_at,
            doubtful=list_meters(session, provider_organisation_id=owner, state=MeterState.QUARANTINED),
            available_fen=available,
            on_its_way_fen=on_its_way,
            notice=read_notice(NOTICES),
        )


def _list_rentals(session: Session, owner: str) -> list[tuple[Rental, Offer]]:
    query = select(Rental, Offer).join(Offer, Offer.id == Rental.offer_id)
    query = query.where(Rental.provider_organisation_id == owner, Rental.purpose == RentalPurpose.CUSTOMER)
    return [(rental, offer) for rental, offer in session.execute(query.order_by(Rental.id.desc()).limit(200))]
