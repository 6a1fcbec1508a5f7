"""Offers of compute side by side, what one costs this firm with its vouchers, and renting it.

It leaves fine-tunes to their own pages and rules to `hub.compute` and `hub.orders`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor
from hub.compute.market import OfferView, compare_offers, view_offer
from hub.compute.rules import HOUR_MS, OfferFilter, OfferSort
from hub.compute.service import find_offer
from hub.ids import new_id
from hub.orders.rental_quotes import estimate_rental
from hub.orders.rentals import rent_offer
from hub.orders.service import wallet
from hub.orders.tables import Quote
from hub.tuning.speeds import Speed, read_speeds
from hub.web import context, current_actor, find_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import BUYERS

blueprint = Blueprint("offers", __name__)
VIA = {"yes": True, "no": False}
MOST_HOURS = 744
MOST_COMPARED = 4


@dataclass(frozen=True)
class OfferRow:
    """One offer with what an hour of it costs the visitor's firm, None for who buys nothing, and its measured speed."""

    view: OfferView
    quote: Quote | None
    speed: Speed | None


@blueprint.get("/offers")
def show_offers() -> tuple[str, int]:
    form, actor = Form(request.args.to_dict()), find_actor()
    wanted = OfferFilter(
        accelerator=form.text("accelerator", most=60),
        region=form.text("region", most=60),
        via_city_platform=VIA.get(form.value("via")),
        max_hour_fen=form.yuan("max_hour"),
        min_memory_gib=form.whole("memory", most=100_000),
        free_only=bool(form.value("free")),
    )
    sort = OfferSort(form.value("sort")) if form.value("sort") in set(OfferSort) else OfferSort.PRICE
    with context().sessions.read() as session:
        views = compare_offers(session, wanted, now=context().clock(), sort=sort)
        rows = _list_rows(session, actor, views)
        page = render_template("offers/offers.html", form=form, rows=rows, sorts=list(OfferSort), buys=_buys(actor))
    return page, 200 if form.ok else 422


@blueprint.get("/offers/compare")
def compare() -> str:
    """The chosen offers in columns, at most four; none chosen: the first ones of the list."""
    actor, chosen = find_actor(), request.args.getlist("offer")[:MOST_COMPARED]
    with context().sessions.read() as session:
        views = compare_offers(session, OfferFilter(), now=context().clock())
        found = [view for view in views if view.offer.id in chosen] if chosen else views[:MOST_COMPARED]
        rows = _list_rows(session, actor, found)
        return render_template("offers/compare.html", rows=rows, buys=_buys(actor))


@blueprint.get("/offers/<offer_id>")
def show_offer(offer_id: str) -> tuple[str, int]:
    form = Form(request.args.to_dict())
    return _show_offer(offer_id, form, new_id("idem")), 200 if form.ok else 422


@blueprint.post("/offers/<offer_id>/rent")
def rent(offer_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    hours = form.whole("hours", most=MOST_HOURS)
    key = form.text("idempotency_key", required=True, most=200)
    if hours is None:
        form.refuse("hours", "请填写整数小时。", "Give whole hours.")
    with form.catching("hours"):
        if form.ok and hours is not None:
            with context().sessions.write() as session:
                rental = rent_offer(
                    session,
                    actor,
                    offer_id,
                    device_ms=hours * HOUR_MS,
                    idempotency_key=key,
                    now=context().clock(),
                )
                return redirect(f"/rentals/{rental.id}?done=rented")
    return _show_offer(offer_id, form, new_id("idem")), 422


def _show_offer(offer_id: str, form: Form, key: str) -> str:
    actor = find_actor()
    form.values.setdefault("hours", "1")
    hours = form.whole("hours", most=MOST_HOURS) or 1
    with context().sessions.read() as session:
        view = view_offer(session, find_offer(session, offer_id))
        return render_template(
            "offers/offer.html",
            form=form,
            view=view,
            hours=hours,
            quote=_estimate(session, actor, view, hours * HOUR_MS),
            speed=read_speeds(session, as_of=context().clock()).get(offer_id),
            wallet=wallet(session, actor.organisation_id) if actor and _buys(actor) else None,
            buys=_buys(actor),
            key=key,
        )


def _list_rows(session: Session, actor: Actor | None, views: Sequence[OfferView]) -> list[OfferRow]:
    speeds = read_speeds(session, as_of=context().clock())
    return [OfferRow(view, _estimate(session, actor, view, HOUR_MS), speeds.get(view.offer.id)) for view in views]


def _buys(actor: Actor | None) -> bool:
    return actor is not None and actor.role in BUYERS


def _estimate(session: Session, actor: Actor | None, view: OfferView, device_ms: int) -> Quote | None:
    if actor is None or not _buys(actor):
        return None
    return estimate_rental(session, actor, view.offer, device_ms=device_ms, now=context().clock())
