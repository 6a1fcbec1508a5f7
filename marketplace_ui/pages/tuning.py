"""The way to a run: base, data, recipe, offers, quote, acceptance; each step's address holds what was chosen.

It leaves planning to the worker, prices and holds to `hub.orders`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from finetune.spec import BOUNDS, RANKS
from hub.actor import Actor
from hub.catalogue.search import Found
from hub.catalogue.service import SearchFilters, find_version, model_of, name_of, root_base, search_models
from hub.catalogue.tables import Model, ModelVersion
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.compute.tables import Device
from hub.datasets.service import DatasetNotReadyError, find_usable_version, list_datasets
from hub.datasets.tables import Dataset, DatasetVersion
from hub.datasets.versions import list_validated
from hub.errors import NotFoundError
from hub.filings.service import Standing, standing_of
from hub.orders.quotes import find_quote, require_buyer
from hub.orders.service import wallet
from hub.orders.tables import Quote
from hub.tuning import ordering, service, stopping
from hub.tuning.states import UNORDERED
from hub.tuning.tables import Run
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.recipe_form import fill_recipe, read_recipe
from marketplace_ui.tuning_estimates import estimate_offers, explain_quote, hint_cover, name_programmes, number_rules

blueprint = Blueprint("tuning", __name__)
MAX_BASES = 100
NOTICES = {
    "created": ("任务已建立，正在计算配方和用量。", "The run is made; its recipe and size are being computed."),
    "quoted": ("报价已生成，请核对后接受。", "The quote is ready; check it and accept."),
}


@dataclass(frozen=True)
class Chosen:
    """What the wizard's address says: base and data as far as they exist, and the run that is being changed."""

    base: ModelVersion | None
    base_name: str
    model: Model | None
    data: tuple[Dataset, DatasetVersion] | None
    source: Run | None


@blueprint.get("/runs/new")
def choose() -> str:
    return _show_wizard(_require_buyer(), None)


@blueprint.post("/runs/new")
def create_run() -> Response | tuple[str, int]:
    actor, form = _require_buyer(), Form.of_request()
    recipe = read_recipe(form)
    name = form.text("name", required=True, most=80)
    seed, cost_centre = form.whole("seed", least=0, most=2**31 - 1), form.optional("cost_centre", most=100)
    run_id = ""
    with form.catching("name"):
        if form.ok:
            seed = 42 if seed is None else seed
            run_id = _create(actor, form, name=name, recipe=recipe, seed=seed, cost_centre=cost_centre)
    return redirect(f"/runs/{run_id}?done=created") if form.ok else (_show_wizard(actor, form), 422)


@blueprint.post("/runs/<run_id>/quote")
def quote_run(run_id: str) -> Response | tuple[str, int]:
    actor, form = _require_buyer(), Form.of_request()
    if not form.value("offer_id"):
        form.refuse("offer_id", "请先选择一个算力报价。", "Choose an offer first.")
    with form.catching("offer_id"):
        if form.ok:
            _quote(actor, run_id, form)
    return redirect(f"/runs/{run_id}?done=quoted#quote") if form.ok else (_show_again(actor, run_id, form), 409)


@blueprint.post("/runs/<run_id>/accept")
def accept_run(run_id: str) -> Response | tuple[str, int]:
    """Accept a quote; its own id is the key, so a second click is the same order."""
    actor, form = _require_buyer(), Form.of_request()
    quote_id = form.value("quote_id")
    with form.catching("offer_id"), context().sessions.write() as session:
        ordering.accept_run(
            session, actor, run_id, quote_id=quote_id, idempotency_key=f"page-{quote_id}", now=context().clock()
        )
    return redirect(f"/runs/{run_id}?done=accepted") if form.ok else (_show_again(actor, run_id, form), 409)


def render_order(session: Session, actor: Actor, run: Run, form: Form) -> str:
    """Return the page of a run that is not ordered yet: plan, offers, quote."""
    now = context().clock()
    version = session.get_one(ModelVersion, run.base_version_id)
    standing = standing_of(session, root_base(session, version).weights_digest, now)
    quote = find_quote(session, actor, run.quote_id) if run.quote_id else None
    return render_template(
        "runs/order.html",
        run=run,
        base=version,
        standing=standing,
        dataset=_find_data(session, run),
        estimates=estimate_offers(session, actor, run, filed=standing.valid, now=now),
        quote=quote,
        quoted_by=explain_quote(session, run, quote) if quote else None,
        holds=_list_holds(quote) if quote else {},
        programmes=name_programmes(session),
        rules=number_rules(session),
        money=wallet(session, run.organisation_id),
        mine=run.organisation_id == actor.organisation_id,
        change=_address_of_change(session, run),
        form=form,
        notice=read_notice(NOTICES),
    )


def _require_buyer() -> Actor:
    actor = current_actor()
    require_buyer(actor)
    return actor


def _show_wizard(actor: Actor, form: Form | None) -> str:
    typed = request.args if form is None else form.values
    now = context().clock()
    with context().sessions.read() as session:
        chosen = _read_chosen(session, actor, typed)
        carried = {name: typed[name] for name in ("base", "data", "from") if typed.get(name)}
        if chosen.base is None or "again" in request.args:
            bases = _list_bases(session, actor)
            hints = {filed: hint_cover(session, actor, filed=filed, now=now) for filed in (True, False)}
            return render_template("runs/base.html", bases=bases, hints=hints, carried=carried, form=form or Form())
        if chosen.data is None:
            rows = list_datasets(session, actor)
            validated = list_validated(session, actor)
            return render_template(
                "runs/data.html", chosen=chosen, rows=rows, validated=validated, carried=carried, form=form or Form()
            )
        return render_template(
            "runs/recipe.html",
            chosen=chosen,
            standing=_read_standing(session, chosen.base),
            form=form or Form(_fill(chosen)),
            has_gpu=any(offer.device is Device.CUDA for offer, _ in list_offers(session, OfferFilter(), now=now)),
            bounds=BOUNDS,
            ranks=RANKS,
            carried=carried,
        )


def _read_chosen(session: Session, actor: Actor, typed: Mapping[str, str]) -> Chosen:
    base = data = source = None
    if typed.get("base"):
        try:
            base = find_version(session, actor, typed["base"])
        except NotFoundError:
            base = None
    if typed.get("data"):
        try:
            version = find_usable_version(session, actor, typed["data"])
            data = session.get_one(Dataset, version.dataset_id), version
        except (NotFoundError, DatasetNotReadyError):
            data = None
    if typed.get("from"):
        source = service.find_run(session, actor, typed["from"])
    model = model_of(session, base) if base else None
    return Chosen(base, name_of(session, base) if base else "", model, data, source)


def _read_standing(session: Session, base: ModelVersion) -> Standing:
    return standing_of(session, root_base(session, base).weights_digest, context().clock())


def _list_bases(session: Session, actor: Actor) -> list[Found]:
    filters = SearchFilters(can_fine_tune=True)
    page = search_models(session, actor, text="", filters=filters, limit=MAX_BASES, cursor=None, now=context().clock())
    # Filed ones first: everything is allowed with them.
    return sorted(page.items, key=lambda item: not item.standing.valid)


def _fill(chosen: Chosen) -> dict[str, str]:
    if chosen.source is None:
        return {"name": "", "seed": "42"}
    earlier = chosen.source
    fields = {"name": earlier.model_name.rpartition("/")[2], "seed": str(earlier.seed)}
    return fields | ({"deploy": "yes"} if earlier.deploy_when_done else {}) | fill_recipe(earlier.recipe)


def _create(
    actor: Actor,
    form: Form,
    *,
    name: str,
    recipe: dict[str, int | float | str],
    seed: int,
    cost_centre: str | None,
) -> str:
    now = context().clock()
    with context().sessions.write() as session:
        run = service.create_run(
            session,
            actor,
            base_version_id=form.value("base"),
            dataset_version_id=form.value("data"),
            model_name=name,
            recipe=recipe,
            seed=seed,
            deploy_when_done=bool(form.value("deploy")),
            cost_centre=cost_centre,
            now=now,
        )
        if form.value("from"):
            earlier = service.find_run(session, actor, form.value("from"))
            if earlier.state in UNORDERED:
                # The changed run takes the place of the one that was only planned.
                stopping.cancel_run(session, actor, earlier.id, now=now)
        return run.id


def _quote(actor: Actor, run_id: str, form: Form) -> Quote:
    with context().sessions.write() as session:
        return ordering.quote_run(
            session,
            actor,
            run_id,
            offer_id=form.value("offer_id"),
            require_model_voucher=bool(form.value("insist")),
            now=context().clock(),
        )


def _show_again(actor: Actor, run_id: str, form: Form) -> str:
    with context().sessions.read() as session:
        return render_order(session, actor, service.find_run(session, actor, run_id), form)


def _list_holds(quote: Quote) -> dict[str, int]:
    """Return what acceptance would hold of each voucher programme, in fen."""
    held: dict[str, int] = {}
    for line in quote.lines:
        for cover in line.covers:
            held[cover.programme] = held.get(cover.programme, 0) + cover.amount_fen
    return held


def _find_data(session: Session, run: Run) -> Dataset:
    version = session.get_one(DatasetVersion, run.dataset_version_id)
    return session.get_one(Dataset, version.dataset_id)


def _address_of_change(session: Session, run: Run) -> dict[str, str]:
    version = session.get_one(DatasetVersion, run.dataset_version_id)
    data = version.dataset_id if version.held_version_id is None else version.id
    return {"base": run.base_public_name, "data": data, "from": run.id}
