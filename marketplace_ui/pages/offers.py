"""The providers' offers of compute, with filters. It leaves ordering to the fine-tune pages, rules to `hub.compute`."""

from dataclasses import dataclass

from flask import Blueprint, render_template, request

from hub.compute.rules import OfferFilter, hour_fen
from hub.compute.service import count_free, list_offers
from hub.compute.tables import Offer, Provider
from hub.web import context
from marketplace_ui.forms import Form

blueprint = Blueprint("offers", __name__)
VIA = {"yes": True, "no": False}


@dataclass(frozen=True)
class OfferRow:
    """One offer with the price of a device hour in fen and how many rentals are free now."""

    offer: Offer
    provider: Provider
    hour_fen: int
    free: int


@blueprint.get("/offers")
def show_offers() -> tuple[str, int]:
    form = Form(request.args.to_dict())
    wanted = OfferFilter(
        accelerator=form.text("accelerator", most=60),
        region=form.text("region", most=60),
        via_city_platform=VIA.get(form.value("via")),
        max_hour_fen=form.yuan("max_hour"),
    )
    with context().sessions.read() as session:
        rows = [
            OfferRow(offer, provider, hour_fen(offer.amount_fen, offer.per_units), count_free(session, offer))
            for offer, provider in list_offers(session, wanted, now=context().clock())
        ]
    return render_template("offers/offers.html", form=form, rows=rows), 200 if form.ok else 422
