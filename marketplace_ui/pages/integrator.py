"""What an integrator sells: uploads with their reports, listings with price and split, earnings.

It leaves the gate's rules to `registry`, states and prices to `hub.catalogue`.
"""

from dataclasses import dataclass

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.catalogue import service
from hub.catalogue.tables import Model, ModelVersion
from hub.orders.cash import wallet
from hub.organisations.service import find_organisation, require_verified
from hub.prices.service import split_parts
from hub.prices.tables import Meter
from hub.web import context, current_actor
from marketplace_ui.cards import MILLION, price_of_million
from marketplace_ui.earnings import list_earnings
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.uploading import list_bases, receive_adapter

blueprint = Blueprint("integrator", __name__)
SELLERS = (Role.INTEGRATOR, Role.FACTORY, Role.OPERATOR)
PRICED = (Meter.PROMPT, Meter.CACHED, Meter.COMPLETION)
NOTICES = {
    "accepted": (
        "全部检查通过，已提交审核。您现在就可以部署自用；审核通过并定价后，其他机构可以调用。",
        "Every check passed and the version is in review. You may deploy it for yourself now; others may call it once "
        "it is approved.",
    ),
    "priced": ("价格与分成已保存，新调用按新价计费。", "Price and split are saved; new calls cost the new price."),
    "submitted": ("已提交审核。", "Submitted for review."),
}


@dataclass(frozen=True)
class Listing:
    """One version on sale or on its way there: price of a million tokens in fen, split as text."""

    model: Model
    version: ModelVersion
    price_fen: int | None
    own_price: bool
    split: list[tuple[str, int, int]]


@blueprint.get("/uploads")
def show_uploads() -> str:
    actor = _require_seller()
    with context().sessions.read() as session:
        return render_template(
            "integrator/uploads.html",
            uploads=service.list_uploads(session, actor),
            listings=_list_listings(session, actor),
            earnings=list_earnings(session, actor.organisation_id),
            wallet=wallet(session, actor.organisation_id),
            notice=read_notice(NOTICES),
        )


@blueprint.route("/uploads/new", methods=["GET", "POST"])
def upload() -> Response | tuple[str, int]:
    actor = _require_seller()
    form, report = Form.of_request(), None
    if request.method == "POST":
        done = receive_adapter(actor, form)
        if done.upload_id and form.ok:
            return redirect(f"/uploads/{done.upload_id}?done=accepted")
        report = done.report
    with context().sessions.read() as session:
        bases = list_bases(session, actor)
        slug = find_organisation(session, actor.organisation_id).slug
        axes = service.read_taxonomy(session)
    page = render_template("integrator/new.html", form=form, bases=bases, slug=slug, axes=axes, report=report)
    return page, 200 if form.ok else 422


@blueprint.get("/uploads/<upload_id>")
def show_upload(upload_id: str) -> str:
    actor = _require_seller()
    with context().sessions.read() as session:
        row = service.find_upload(session, actor, upload_id)
        version = session.get(ModelVersion, row.version_id) if row.version_id else None
        base = service.name_of(session, session.get_one(ModelVersion, row.base_version_id))
        return render_template(
            "integrator/upload.html", upload=row, version=version, base=base, notice=read_notice(NOTICES)
        )


@blueprint.route("/uploads/versions/<version_id>", methods=["GET", "POST"])
def set_price(version_id: str) -> Response | tuple[str, int]:
    actor = _require_seller()
    with context().sessions.read() as session:
        version = service.find_owned_version(session, actor, version_id)
        form = Form.of_request() if request.method == "POST" else _describe_price(session, version)
        name, model = service.name_of(session, version), service.model_of(session, version)
        base = service.model_of(session, service.root_base(session, version))
    if request.method == "POST":
        _save_price(actor, version, base, form)
        if form.ok:
            return redirect("/uploads?done=priced")
    page = render_template("integrator/price.html", form=form, version=version, name=name, model=model, base=base)
    return page, 200 if form.ok else 422


@blueprint.post("/uploads/versions/<version_id>/submit")
def submit(version_id: str) -> Response:
    actor = _require_seller()
    with context().sessions.write() as session:
        service.submit_version(session, actor, version_id, now=context().clock())
    return redirect("/uploads?done=submitted")


def _require_seller() -> Actor:
    actor = current_actor()
    actor.require(*SELLERS)
    return actor


def _list_listings(session: Session, actor: Actor) -> list[Listing]:
    query = (
        select(Model, ModelVersion)
        .join(ModelVersion, ModelVersion.model_id == Model.id)
        .where(ModelVersion.organisation_id == actor.organisation_id)
        .order_by(ModelVersion.id.desc())
        .limit(100)
    )
    now = context().clock()
    return [
        Listing(
            model,
            version,
            price_of_million(service.price_of(session, version, now), Meter.COMPLETION),
            version.price_version_id is not None,
            [(str(part.party), part.num, part.den) for part in split_parts(session, version.split_terms_id) or []],
        )
        for model, version in session.execute(query)
    ]


def _describe_price(session: Session, version: ModelVersion) -> Form:
    """Return the form filled with the price and split in force."""
    price = service.price_of(session, version, context().clock())
    values = {
        str(meter): f"{fen // 100}.{fen % 100:02d}"
        for meter in PRICED
        if (fen := price_of_million(price, meter)) is not None
    }
    parts = split_parts(session, version.split_terms_id) or []
    values |= {str(part.party): str(part.num * 100 // part.den) for part in parts}
    return Form(values)


def _save_price(actor: Actor, version: ModelVersion, base: Model, form: Form) -> None:
    amounts = {meter: form.yuan(meter) for meter in PRICED}
    for meter in (Meter.PROMPT, Meter.COMPLETION):
        if amounts[meter] is None:
            form.refuse(meter, "请填写价格；免费请填 0。", "Give a price; 0 for free.")
    owners = {"integrator": version.organisation_id, "base_owner": base.organisation_id, "pool": None}
    shares = {party: form.whole(party, least=0, most=100) or 0 for party in owners}
    if form.ok and sum(shares.values()) > 100:
        total = sum(shares.values())
        form.refuse(
            "pool", f"三项合计 {total} %，不得超过 100 %。", f"The three add up to {total} %; the limit is 100 %."
        )
    if not form.ok:
        return
    with form.catching(), context().sessions.write() as session:
        require_verified(session, version.organisation_id)
        service.price_version(
            session,
            actor,
            version.id,
            lines={str(meter): (amount, MILLION) for meter, amount in amounts.items() if amount is not None},
            parts=[
                {"party": party, "organisation_id": owner, "num": shares[party], "den": 100}
                for party, owner in owners.items()
                if shares[party]
            ],
            now=context().clock(),
        )
