"""Vouchers: programmes with the rule of the day, applications with their papers, grants, review by two persons.

It leaves eligibility, caps and funds to `hub.vouchers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.organisations.service import find_organisation
from hub.organisations.tables import Organisation
from hub.vouchers import service
from hub.vouchers.rules import RuleBody, read_body
from hub.vouchers.service import GrantBalance
from hub.vouchers.tables import (
    Application,
    ApplicationState,
    Programme,
    RuleVersion,
    Tranche,
    VoucherReview,
)
from hub.web import context, current_actor, find_actor
from marketplace_ui.forms import Form
from marketplace_ui.kept_papers import read_kept, take_paper
from marketplace_ui.layout import BUYERS, read_notice
from marketplace_ui.people import name_person

blueprint = Blueprint("vouchers", __name__)
PAPERS = ("contract", "invoice", "payment", "delivery", "filing", "other")
OPEN = (ApplicationState.SUBMITTED, ApplicationState.CHECKED, ApplicationState.APPEALED)
NOTICES = {
    "applied": (
        "申请已提交。先由一人初审，再由另一人批准；结果会显示在这里。",
        "Your application is in. One person checks it, another approves it; the outcome shows here.",
    ),
    "reviewed": ("决定已记录。", "The decision is recorded."),
    "resubmit": ("已重新提交，由两人重新审核。", "Handed in again; two persons look at it anew."),
    "withdraw": ("申请已撤回。", "The application is withdrawn."),
    "appeal": ("申诉已提交，由此前未参与的人决定。", "The appeal is in; a person who has not decided before decides."),
}


@dataclass(frozen=True)
class ProgrammeView:
    """A programme with its rule of the day (None: no rule in force) and the fund's tranches."""

    programme: Programme
    version: RuleVersion | None
    rule: RuleBody | None
    tranches: list[Tranche]

    @property
    def open(self) -> bool:
        """Whether applications are taken."""
        return self.programme.objects_held and self.rule is not None


@dataclass(frozen=True)
class ApplicationView:
    """An application with its programme and firm; `reviews` carry the reviewers' names."""

    application: Application
    programme: Programme
    firm: Organisation
    reviews: list[tuple[VoucherReview, str]]


@blueprint.get("/vouchers")
def show_vouchers() -> str:
    actor, now = find_actor(), context().clock()
    with context().sessions.read() as session:
        applications = [_view(session, row) for row in service.list_applications(session, actor)] if actor else []
        return render_template(
            "vouchers/vouchers.html",
            programmes=list_views(session, now),
            applications=applications,
            grants=_list_grants(session, actor),
            firms=_name_firms(session, applications),
            reads_all=actor is not None and actor.reads_all,
            may_apply=actor is not None and actor.role in BUYERS,
            notice=read_notice(NOTICES),
        )


@blueprint.route("/vouchers/apply", methods=["GET", "POST"])
def apply() -> Response | tuple[str, int]:
    actor = current_actor()
    actor.require(*BUYERS)
    form = Form.of_request() if request.method == "POST" else Form({"programme": request.args.get("programme", "")})
    if request.method == "POST":
        _apply(actor, form)
        if form.ok:
            return redirect("/vouchers?done=applied#applications")
    now = context().clock()
    with context().sessions.read() as session:
        views = [view for view in list_views(session, now) if view.open]
        firm = find_organisation(session, actor.organisation_id)
        page = render_template(
            "vouchers/apply.html",
            form=form,
            programmes=views,
            papers=PAPERS,
            firm=firm,
            kept={kind: read_kept(form, f"paper_{kind}") for kind in PAPERS},
        )
    return page, 200 if form.ok else 422


@blueprint.get("/vouchers/applications/<application_id>")
def show_application(application_id: str) -> str:
    return _show_application(current_actor(), application_id, Form())


@blueprint.post("/vouchers/applications/<application_id>")
def review(application_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    reason = form.text("reason", required=True, most=1000)
    granted = form.yuan("granted_fen")
    with form.catching("decision", "reason", "granted_fen"):
        if form.ok:
            with context().sessions.write() as session:
                service.review_application(
                    session,
                    actor,
                    application_id,
                    decision=form.value("decision"),
                    reason=reason,
                    granted_fen=granted,
                    now=context().clock(),
                )
    if form.ok:
        return redirect(f"/vouchers/applications/{application_id}?done=reviewed")
    return _show_application(actor, application_id, form), 422


def list_views(session: Session, now: datetime) -> list[ProgrammeView]:
    """Return the programmes, open ones first."""
    views = []
    for programme in service.list_programmes(session):
        version = service.rule_of_day(session, programme.id, now)
        rule = read_body(version.body) if version else None
        views.append(ProgrammeView(programme, version, rule, service.list_tranches(session, programme.id)))
    return sorted(views, key=lambda view: not view.open)


def list_queue(session: Session, actor: Actor) -> list[ApplicationView]:
    """Return the applications that wait for a decision, oldest first."""
    found = [row for row in service.list_applications(session, actor) if row.state in OPEN]
    return [_view(session, row) for row in reversed(found)]


def _show_application(actor: Actor, application_id: str, form: Form) -> str:
    with context().sessions.read() as session:
        view = _view(session, service.find_application(session, actor, application_id))
        version = session.get_one(RuleVersion, view.application.rule_version_id)
        return render_template(
            "vouchers/application.html",
            view=view,
            version=version,
            rule=read_body(version.body),
            form=form,
            may_review=actor.role is Role.OPERATOR and view.application.state in OPEN,
            reads=actor.reads_all,
            obstacle=service.may_decide(actor, view.application, [row for row, _ in view.reviews]),
            decisions=service.list_decisions(view.application, [row for row, _ in view.reviews]),
            own_firm=actor.organisation_id == view.application.organisation_id and actor.role in BUYERS,
            paper_kinds=PAPERS,
            grants=[
                grant
                for grant in service.list_grants(session, view.firm.id)
                if grant.grant.application_id == view.application.id
            ],
            notice=read_notice(NOTICES),
        )


def _apply(actor: Actor, form: Form) -> None:
    asked = form.yuan("asked_fen")
    contract, tier = form.text("contract_no", required=True, most=100), form.optional("tier", most=100)
    if asked is None:
        form.refuse("asked_fen", "请填写申请金额。", "Give the amount you ask for.")
    if not form.value("programme"):
        form.refuse("programme", "请选择项目。", "Choose a programme.")
    evidence = _take_papers(form)
    if not form.ok or asked is None:
        return
    with (
        form.catching("programme", "asked_fen", "contract_no", "tier", "evidence"),
        context().sessions.write() as session,
    ):
        service.apply_for_voucher(
            session,
            actor,
            programme=form.value("programme"),
            asked_fen=asked,
            contract_no=contract,
            tier=tier,
            evidence=evidence,
            now=context().clock(),
        )


def _take_papers(form: Form) -> list[dict[str, str]]:
    found = [(kind, take_paper(form, f"paper_{kind}")) for kind in PAPERS]
    return [{"kind": kind, "name": paper.name, "digest": paper.digest} for kind, paper in found if paper is not None]


def _view(session: Session, application: Application) -> ApplicationView:
    reviews = [(row, name_person(session, row.actor_id)) for row in service.list_reviews(session, application.id)]
    return ApplicationView(
        application,
        session.get_one(Programme, application.programme_id),
        find_organisation(session, application.organisation_id),
        reviews,
    )


def _list_grants(session: Session, actor: Actor | None) -> list[GrantBalance]:
    if actor is None:
        return []
    return service.list_grants(session, None if actor.reads_all else actor.organisation_id)


def _name_firms(session: Session, views: list[ApplicationView]) -> Mapping[str, str]:
    return {view.firm.id: view.firm.name for view in views}
