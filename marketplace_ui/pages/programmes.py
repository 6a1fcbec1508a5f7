"""The officer's pages of programmes: versions, a draft with a preview of its changes, a second person's decision.

It leaves what a rule may say to `hub.vouchers`; the auditor reads and changes nothing.
"""

from typing import Any

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.errors import NotFoundError
from hub.vouchers import service
from hub.vouchers.rule_changes import list_changes
from hub.vouchers.rules import ZONES, read_body
from hub.vouchers.tables import Programme, RuleState, RuleVersion
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.people import name_person
from marketplace_ui.rule_form import (
    DAY,
    LISTS,
    MEMBERS,
    SWITCHES,
    ShownChange,
    fill_form,
    help_field,
    name_field,
    name_member,
    name_value,
    read_shape,
    show_changes,
)
from marketplace_ui.tier_form import list_rows

blueprint = Blueprint("programmes", __name__)
NOTICES = {
    "drafted": (
        "草案已保存，须由另一人批准后生效。",
        "The draft is kept; another person approves it before it counts.",
    ),
    "approved": ("规则已批准。", "The rule is approved."),
    "refused": ("草案已驳回。", "The draft is refused."),
}


@blueprint.get("/operator/programmes")
def list_programmes() -> str:
    current_actor(*READERS)
    now = context().clock()
    with context().sessions.read() as session:
        rows = [
            (programme, service.rule_of_day(session, programme.id, now), _count_drafts(session, programme))
            for programme in service.list_programmes(session)
        ]
        return render_template("programmes/list.html", rows=rows, notice=read_notice(NOTICES))


@blueprint.get("/operator/programmes/<code>")
def show_programme(code: str) -> str:
    actor = current_actor(*READERS)
    with context().sessions.read() as session:
        programme = service.find_programme(session, code)
        rules = service.list_rules(session, programme.id)
        current = service.rule_of_day(session, programme.id, context().clock())
        return render_template(
            "programmes/programme.html",
            programme=programme,
            rules=[(rule, name_person(session, rule.drafted_by)) for rule in rules],
            current=current,
            current_rule=read_body(current.body) if current else None,
            tranches=service.list_tranches(session, programme.id),
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


@blueprint.route("/operator/programmes/<code>/draft", methods=["GET", "POST"])
def draft_rule(code: str) -> Response | tuple[str, int]:
    actor = current_actor()
    actor.require(Role.OPERATOR)
    with context().sessions.read() as session:
        programme = service.find_programme(session, code)
        current = service.rule_of_day(session, programme.id, context().clock())
        others = [row.code for row in service.list_programmes(session) if row.code != code]
    form = Form.of_request() if request.method == "POST" else fill_form(current)
    changes: list[ShownChange] | None = None
    if request.method == "POST":
        shape = read_shape(form, current)
        _start_today(shape)
        with form.catching("body", "source", "tz", "basis_date", "vat_bp", "share_base", "tiers"):
            changes = show_changes(list_changes(current.body if current else None, shape["body"]))
            if form.ok and form.value("step") == "draft":
                with context().sessions.write() as session:
                    rule = service.draft_rule(session, actor, programme=code, **shape, now=context().clock())
        if form.ok and form.value("step") == "draft":
            return redirect(f"/operator/rules/{rule.id}?done=drafted")
    page = render_template(
        "programmes/draft.html",
        programme=programme,
        current=current,
        others=others,
        form=form,
        changes=changes,
        zones=list(ZONES),
        switches=SWITCHES,
        members=MEMBERS,
        lists=LISTS,
        tier_rows=list_rows(form),
        name_field=name_field,
        help_field=help_field,
        name_member=name_member,
        name_value=name_value,
    )
    return page, 200 if form.ok else 422


@blueprint.get("/operator/rules/<rule_version_id>")
def show_rule(rule_version_id: str) -> str:
    return _show_rule(current_actor(*READERS), rule_version_id, Form())


@blueprint.post("/operator/rules/<rule_version_id>/approve")
def approve_rule(rule_version_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    with form.catching(), context().sessions.write() as session:
        service.approve_rule(session, actor, rule_version_id, now=context().clock())
    if form.ok:
        return redirect(f"/operator/rules/{rule_version_id}?done=approved")
    return _show_rule(actor, rule_version_id, form), 422


@blueprint.post("/operator/rules/<rule_version_id>/refuse")
def refuse_rule(rule_version_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    with form.catching("reason"), context().sessions.write() as session:
        reason = form.text("reason", required=True, most=1000)
        if form.ok:
            service.refuse_rule(session, actor, rule_version_id, reason=reason, now=context().clock())
    if form.ok:
        return redirect(f"/operator/rules/{rule_version_id}?done=refused")
    return _show_rule(actor, rule_version_id, form), 422


def _start_today(shape: dict[str, Any]) -> None:
    """Let a rule whose first day is today begin now: what is over keeps its rule."""
    start, now = shape["effective_from_at"], context().clock()
    if start is not None and start <= now < start + DAY:
        shape["effective_from_at"] = now


def _show_rule(actor: Actor, rule_version_id: str, form: Form) -> str:
    with context().sessions.read() as session:
        rule = session.get(RuleVersion, rule_version_id)
        if rule is None:
            raise NotFoundError.of("rule version", rule_version_id)
        before = _find_before(session, rule)
        return render_template(
            "programmes/rule.html",
            version=rule,
            rule=read_body(rule.body),
            programme=session.get_one(Programme, rule.programme_id),
            before=before,
            changes=show_changes(list_changes(before.body if before else None, rule.body)),
            drafter=name_person(session, rule.drafted_by),
            approver=name_person(session, rule.approved_by) if rule.approved_by else "",
            refuser=name_person(session, rule.refused_by) if rule.refused_by else "",
            waits=rule.state is RuleState.DRAFT and actor.role is Role.OPERATOR,
            drafted_it=rule.drafted_by == actor.user_id,
            form=form,
            notice=read_notice(NOTICES),
        )


def _find_before(session: Session, rule: RuleVersion) -> RuleVersion | None:
    """Return the approved version that a rule follows: the next lower number."""
    rules = service.list_rules(session, rule.programme_id)
    return next((row for row in rules if row.number < rule.number and row.state is RuleState.APPROVED), None)


def _count_drafts(session: Session, programme: Programme) -> int:
    return sum(row.state is RuleState.DRAFT for row in service.list_rules(session, programme.id))
