"""The form with which a provider publishes an offer or changes one: a change is a new offer in the old one's place.

It leaves prices and offers to `hub.tuning.offers` and pausing to the provider's desk.
"""

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.compute.rules import HOUR_MS
from hub.compute.service import ensure_provider, find_offer, withdraw_offer
from hub.compute.tables import Device, Offer, Provider
from hub.errors import NotFoundError
from hub.organisations.service import find_organisation
from hub.tuning.offers import publish_offer
from hub.web import context, current_actor
from marketplace_ui.forms import Form

blueprint = Blueprint("offer_form", __name__)
TEXTS = ("title_zh", "title_en", "accelerator", "region_zh", "region_en")
WHOLES = ("count", "memory_gib", "cpu_threads", "tokens_per_s", "available")
DEVICES = [(Device.CUDA, "GPU"), (Device.CPU, "CPU")]


@blueprint.get("/provider/offers/new")
def show_new() -> str:
    _require_provider()
    return _show(Form({"count": "1", "cpu_threads": "1", "available": "1"}))


@blueprint.post("/provider/offers")
def publish() -> Response | tuple[str, int]:
    return _publish(_require_provider(), "")


@blueprint.get("/provider/offers/<offer_id>/change")
def show_change(offer_id: str) -> str:
    actor = _require_provider()
    with context().sessions.read() as session:
        offer = _find_own(session, actor, offer_id)
        values = {name: str(getattr(offer, name)) for name in (*TEXTS, *WHOLES, "device")}
        hour = offer.amount_fen * HOUR_MS // offer.per_units
        city = {"via_city_platform": "yes"} if offer.via_city_platform else {}
        return _show(Form(values | city | {"hour_fen": f"{hour // 100}.{hour % 100:02d}"}), offer_id)


@blueprint.post("/provider/offers/<offer_id>/change")
def change(offer_id: str) -> Response | tuple[str, int]:
    return _publish(_require_provider(), offer_id)


def _publish(actor: Actor, offer_id: str) -> Response | tuple[str, int]:
    form = Form.of_request()
    texts = {name: form.text(name, required=True, most=60) for name in TEXTS}
    wholes = {name: form.whole(name) for name in WHOLES}
    price, device = form.yuan("hour_fen"), form.choice("device", Device)
    for name, value in {**wholes, "hour_fen": price}.items():
        if not value and not form.error(name):
            form.refuse(name, "请填写大于 0 的数值。", "Give a number above 0.")
    with form.catching(*TEXTS, *WHOLES, "hour_fen"):
        if form.ok and price and device is not None:
            with context().sessions.write() as session:
                now = context().clock()
                publish_offer(
                    session,
                    actor,
                    provider_id=_find_provider(session, actor).id,
                    via_city_platform=bool(form.value("via_city_platform")),
                    amount_fen=price,
                    per_device_ms=HOUR_MS,
                    device=device,
                    now=now,
                    title_zh=texts["title_zh"],
                    title_en=texts["title_en"],
                    accelerator=texts["accelerator"],
                    region_zh=texts["region_zh"],
                    region_en=texts["region_en"],
                    count=wholes["count"] or 1,
                    memory_gib=wholes["memory_gib"] or 1,
                    cpu_threads=wholes["cpu_threads"] or 1,
                    tokens_per_s=wholes["tokens_per_s"] or 1,
                    available=wholes["available"] or 1,
                )
                if offer_id:
                    withdraw_offer(session, actor, _find_own(session, actor, offer_id).id, now=now)
    if form.ok:
        return redirect(f"/provider?done={'changed' if offer_id else 'published'}")
    return _show(form, offer_id), 422


def _find_provider(session: Session, actor: Actor) -> Provider:
    """Return the actor's provider, registered under its organisation's name with its first offer."""
    found = session.scalar(select(Provider).where(Provider.organisation_id == actor.organisation_id))
    if found is not None:
        return found
    name = find_organisation(session, actor.organisation_id).name
    return ensure_provider(
        session,
        actor,
        organisation_id=actor.organisation_id,
        name_zh=name,
        name_en=name,
        now=context().clock(),
    )


def _find_own(session: Session, actor: Actor, offer_id: str) -> Offer:
    offer = find_offer(session, offer_id)
    if offer.organisation_id != actor.organisation_id:
        raise NotFoundError.of("offer", offer_id)
    return offer


def _require_provider() -> Actor:
    actor = current_actor()
    actor.require(Role.PROVIDER)
    return actor


def _show(form: Form, offer_id: str = "") -> str:
    return render_template("offers/form.html", form=form, offer_id=offer_id, devices=DEVICES)
