"""Owners and related parties: a firm declares who stands behind it, an officer confirms and decides on pairs.

It leaves what a relation stops to `hub.vouchers` and `hub.claims`.
"""

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.organisations import ownership
from hub.organisations.service import find_organisation, list_organisations
from hub.organisations.tables import OwnerKind
from hub.vouchers.related import find_relation, list_rulings, rule_on_pair
from hub.vouchers.tables import Verdict
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.people import name_person

blueprint = Blueprint("related", __name__)
WINDOW_DAYS = 90
NOTICES = {
    "declared": ("已申报，运营方会核实。", "Declared; the operator will confirm it."),
    "ended": ("已结束。", "The entry is ended."),
    "confirmed": ("已核实。", "Confirmed."),
    "decided": ("认定已记录。", "The decision is recorded."),
}


@blueprint.route("/vouchers/owners", methods=["GET", "POST"])
def own_owners() -> Response | tuple[str, int]:
    actor = current_actor()
    form = Form.of_request() if request.method == "POST" else Form({"kind": OwnerKind.LEGAL_PERSON})
    if request.method == "POST":
        kind, share = form.choice("kind", OwnerKind), form.whole("share_bp", most=10_000)
        name, code = form.text("name", required=True), form.text("code", most=18)
        with form.catching("name", "code", "share_bp"):
            if form.ok and kind is not None:
                with context().sessions.write() as session:
                    ownership.declare_owner(
                        session,
                        actor,
                        actor.organisation_id,
                        kind=kind,
                        name=name,
                        code=code,
                        share_bp=share,
                        now=context().clock(),
                    )
        if form.ok:
            return redirect("/vouchers/owners?done=declared")
    with context().sessions.read() as session:
        page = render_template(
            "vouchers/owners.html",
            rows=ownership.list_owners(session, actor.organisation_id),
            kinds=list(OwnerKind),
            form=form,
            notice=read_notice(NOTICES),
        )
    return page, 200 if form.ok else 422


@blueprint.post("/vouchers/owners/<owner_id>/end")
def end_owner(owner_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        ownership.end_owner(session, actor, owner_id, now=context().clock())
    return redirect("/operator/related?done=ended" if actor.role is Role.OPERATOR else "/vouchers/owners?done=ended")


@blueprint.post("/vouchers/owners/<owner_id>/confirm")
def confirm_owner(owner_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        ownership.confirm_owner(session, actor, owner_id, now=context().clock())
    return redirect("/operator/related?done=confirmed")


@blueprint.get("/operator/related")
def show_related() -> str:
    return _show(
        current_actor(*READERS), Form({name: request.args.get(name, "") for name in ("buyer_id", "seller_id")})
    )


@blueprint.post("/operator/related")
def decide() -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    verdict, reason = form.choice("verdict", Verdict), form.text("reason", required=True, most=1000)
    buyer, seller = form.text("buyer_id", required=True), form.text("seller_id", required=True)
    with form.catching("reason", "verdict"):
        if form.ok and verdict is not None:
            with context().sessions.write() as session:
                rule_on_pair(session, actor, buyer, seller, verdict=verdict, reason=reason, now=context().clock())
    return redirect("/operator/related?done=decided") if form.ok else (_show(actor, form), 422)


def _show(actor: Actor, form: Form) -> str:
    current_actor(*READERS)
    buyer, seller = form.value("buyer_id"), form.value("seller_id")
    with context().sessions.read() as session:
        names = {row.id: row.name for row in list_organisations(session)}
        asked = buyer in names and seller in names
        found = find_relation(session, buyer, seller, window_days=WINDOW_DAYS, now=context().clock()) if asked else None
        return render_template(
            "claims/related.html",
            unconfirmed=[
                (row, find_organisation(session, row.organisation_id).name)
                for row in ownership.list_unconfirmed(session)
            ],
            rulings=[(row, name_person(session, row.decided_by)) for row in list_rulings(session)],
            firms=list_organisations(session),
            names=names,
            relation=found,
            form=form,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )
