"""The operator's desk: what waits for a decision, figures from real records, money.

The auditor sees all of it and changes nothing. It leaves every rule to the services.
"""

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.catalogue import service as catalogue
from hub.catalogue.tables import VersionDecision, VersionState
from hub.filings.tables import Ruling
from hub.orders.service import deposit
from hub.organisations import service as organisations
from hub.organisations.tables import OrganisationState
from hub.prices.rules import METERS
from hub.prices.service import DEFAULT, find_price, publish_price
from hub.prices.tables import PriceSubject
from hub.web import context, current_actor
from marketplace_ui.cards import MILLION
from marketplace_ui.figures import count_records, list_deposits
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.pages.vouchers import list_queue
from marketplace_ui.review_view import view_review

blueprint = Blueprint("operator", __name__)
PRICED = (PriceSubject.TUNING, PriceSubject.BASE, PriceSubject.ADAPTER)
NOTICES = {
    "verified": ("机构已核验，可以下单。", "The organisation is verified and may order."),
    "suspended": ("机构已停用，其人员不能登录。", "The organisation is suspended; its people cannot sign in."),
    "reviewed": ("审核决定已记录。", "The decision is recorded."),
    "deposited": ("已入账。", "The deposit is booked."),
    "priced": ("新价格已发布；已有报价仍按原价格。", "The price is published; quotes made before keep theirs."),
}


@blueprint.get("/operator")
def show_desk() -> str:
    actor = current_actor(*READERS)
    with context().sessions.read() as session:
        pending = organisations.list_organisations(session, OrganisationState.PENDING)
        in_review = catalogue.list_in_state(session, actor, VersionState.IN_REVIEW)
        return render_template(
            "operator/desk.html",
            figures=count_records(session, context().clock()),
            pending=pending,
            in_review=[view_review(session, version) for version in in_review],
            queue=list_queue(session, actor),
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


@blueprint.get("/operator/organisations")
def list_organisations() -> str:
    return _show_organisations(current_actor(*READERS), Form(), "")


@blueprint.post("/operator/organisations/<organisation_id>/verify")
def verify(organisation_id: str) -> Response:
    actor = current_actor(Role.OPERATOR)
    with context().sessions.write() as session:
        organisations.verify_organisation(session, actor, organisation_id, now=context().clock())
    return redirect("/operator/organisations?done=verified")


@blueprint.post("/operator/organisations/<organisation_id>/suspend")
def suspend(organisation_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    reason = form.text("reason", required=True, most=500)
    with form.catching("reason"):
        if form.ok:
            with context().sessions.write() as session:
                organisations.suspend_organisation(
                    session, actor, organisation_id, reason=reason, now=context().clock()
                )
    if form.ok:
        return redirect("/operator/organisations?done=suspended")
    return _show_organisations(actor, form, organisation_id), 422


@blueprint.route("/operator/versions/<version_id>", methods=["GET", "POST"])
def review_version(version_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(*READERS), Form.of_request()
    if request.method == "POST":
        _review(actor, version_id, form)
        if form.ok:
            return redirect("/operator?done=reviewed")
    with context().sessions.read() as session:
        version = catalogue.find_version(session, actor, version_id)
        page = render_template(
            "operator/version.html",
            view=view_review(session, version),
            reviews=catalogue.list_reviews(session, actor, version),
            rulings=list(Ruling),
            form=form,
            writes=actor.role is Role.OPERATOR and version.state is VersionState.IN_REVIEW,
        )
    return page, 200 if form.ok else 422


@blueprint.get("/operator/money")
def show_money() -> str:
    return _show_money(current_actor(*READERS), Form(), "")


@blueprint.post("/operator/deposits")
def book_deposit() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    amount = form.yuan("amount_fen")
    reference = form.text("reference", required=True, most=100)
    firm = form.text("organisation_id", required=True, most=60)
    if not amount:
        form.refuse("amount_fen", "请填写大于 0 的金额。", "Give an amount above 0.")
    with form.catching("amount_fen", "reference"):
        if form.ok and amount:
            with context().sessions.write() as session:
                deposit(session, actor, firm, amount_fen=amount, reference=reference, now=context().clock())
    return redirect("/operator/money?done=deposited") if form.ok else (_show_money(actor, form, "deposit"), 422)


@blueprint.post("/operator/prices/<any(tuning,base,adapter):kind>")
def publish(kind: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    subject = PriceSubject(kind)
    typed = {str(meter): form.yuan(f"{kind}-{meter}") for meter in METERS[subject]}
    lines = {meter: (fen, MILLION) for meter, fen in typed.items() if fen is not None}
    with form.catching():
        if form.ok:
            with context().sessions.write() as session:
                publish_price(
                    session,
                    actor,
                    organisation_id=actor.organisation_id,
                    subject_kind=subject,
                    subject=DEFAULT,
                    lines=lines,
                    now=context().clock(),
                )
    return redirect("/operator/money?done=priced") if form.ok else (_show_money(actor, form, kind), 422)


def _show_organisations(actor: Actor, form: Form, refused_id: str) -> str:
    with context().sessions.read() as session:
        return render_template(
            "operator/organisations.html",
            rows=organisations.list_organisations(session),
            form=form,
            refused_id=refused_id,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _show_money(actor: Actor, form: Form, sent: str) -> str:
    """Return the page; `sent` says which of its forms was refused."""
    now = context().clock()
    with context().sessions.read() as session:
        return render_template(
            "operator/money.html",
            rows=organisations.list_organisations(session, OrganisationState.VERIFIED),
            deposits=list_deposits(session),
            prices=[(kind, find_price(session, kind, DEFAULT, now), METERS[kind]) for kind in PRICED],
            form=form,
            blank=Form(),
            sent=sent,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _review(actor: Actor, version_id: str, form: Form) -> None:
    actor.require(Role.OPERATOR)
    decision = form.choice("decision", VersionDecision)
    reason = form.text("reason", required=True, most=1000)
    ruling = form.choice("ruling", Ruling) if form.value("ruling") else None
    number = form.optional("number")
    with form.catching("decision", "reason", "ruling", "number"):
        if not form.ok or decision is None:
            return
        with context().sessions.write() as session:
            catalogue.review_version(
                session,
                actor,
                version_id,
                decision=decision,
                reason=reason,
                ruling=ruling,
                ruling_number=number,
                now=context().clock(),
            )
