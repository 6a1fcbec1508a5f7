"""The officer's pages of claims and redemptions: draft, pack, submit, payment, refusal, reconciliation; auditors read.

It leaves what may be claimed to `hub.claims` and the authority report to `reports`.
"""

import tempfile
from collections.abc import Callable
from datetime import datetime

from flask import Blueprint, redirect, render_template
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.claims import service
from hub.claims.claim_routes import write_same_pack
from hub.claims.tables import Claim, Redemption, RedemptionState
from hub.ledger.periods import month_key
from hub.organisations.service import find_organisation, list_organisations
from hub.vouchers.service import list_programmes
from hub.vouchers.tables import Application, Grant, Programme
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice
from marketplace_ui.people import name_person
from marketplace_ui.period_form import read_period

blueprint = Blueprint("claims", __name__)
NOTICES = {
    "drafted": ("申报已起草，须由另一人提交。", "The claim is drafted; another person submits it."),
    "submission": ("申报已提交，材料包已封存校验值。", "The claim is submitted; its pack is sealed by its checksum."),
    "withdrawal": ("草案已撤回，金额可重新申报。", "The draft is taken back; its money can be claimed again."),
    "payment": ("到账已登记。", "The payment is booked."),
    "refusal": ("已登记主管部门退回，金额可重新申报。", "The refusal is noted; the money can be claimed again."),
    "reconciliation": ("申报已对账结清。", "The claim is reconciled."),
    "redeemed": ("决定已记录。", "The decision is recorded."),
}


@blueprint.get("/operator/claims")
def list_claims() -> str:
    return _show_list(current_actor(*READERS), Form())


@blueprint.post("/operator/claims")
def draft_claim() -> Response | tuple[str, int]:
    actor, form, now = current_actor(), Form.of_request(), context().clock()
    programme, period = form.text("programme", required=True), read_period(form)
    firm = form.optional("organisation_id")
    if not form.ok:
        return _show_list(actor, form), 422
    with form.catching("programme", "period", "organisation_id"):
        with context().sessions.read() as session:
            plan = service.plan_claim(session, actor, programme=programme, period=period, organisation_id=firm, now=now)
        with context().sessions.write() as session:
            claim = service.place_claim(session, actor, plan, now=now)
    return redirect(f"/operator/claims/{claim.id}?done=drafted") if form.ok else (_show_list(actor, form), 422)


@blueprint.get("/operator/claims/<claim_id>")
def show_claim(claim_id: str) -> str:
    return _show_claim(current_actor(*READERS), claim_id, Form(), "")


@blueprint.post("/operator/claims/<claim_id>/<any(submission,withdrawal,refusal,payment,reconciliation):step>")
def take_step(claim_id: str, step: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    with form.catching("paid_fen", "reference", "reason"):
        _STEPS[step](actor, claim_id, form, context().clock())
    if form.ok:
        return redirect(f"/operator/claims/{claim_id}?done={step}")
    return _show_claim(actor, claim_id, form, step), 422


@blueprint.post("/operator/redemptions/<redemption_id>")
def review_redemption(redemption_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    reason, decision, now = form.text("reason", most=1000), form.value("decision"), context().clock()
    if form.ok:
        with form.catching("reason"), context().sessions.write() as session:
            service.review_redemption(session, actor, redemption_id, decision=decision, reason=reason, now=now)
    return redirect("/operator/claims?done=redeemed#redemptions") if form.ok else (_show_list(actor, form), 422)


def _submit(actor: Actor, claim_id: str, form: Form, now: datetime) -> None:
    with context().sessions.read() as session, tempfile.TemporaryFile() as target:
        sha256 = write_same_pack(session, service.find_claim(session, actor, claim_id), target)
    with context().sessions.write() as session:
        service.submit_claim(session, actor, claim_id, pack_sha256=sha256, now=now)


def _withdraw(actor: Actor, claim_id: str, form: Form, now: datetime) -> None:
    reason = form.text("reason", required=True)
    if form.ok:
        with context().sessions.write() as session:
            service.withdraw_claim(session, actor, claim_id, reason=reason, now=now)


def _refuse(actor: Actor, claim_id: str, form: Form, now: datetime) -> None:
    reason = form.text("reason", required=True, most=1000)
    if form.ok:
        with context().sessions.write() as session:
            service.refuse_claim(session, actor, claim_id, reason=reason, now=now)


def _book_payment(actor: Actor, claim_id: str, form: Form, now: datetime) -> None:
    paid, reference = form.yuan("paid_fen"), form.text("reference", required=True, most=100)
    if paid is None:
        form.refuse("paid_fen", "请填写到账金额。", "Give the amount that came in.")
    if not form.ok or paid is None:
        return
    with context().sessions.write() as session:
        claim = service.find_claim(session, actor, claim_id)
        signed = -paid if claim.amount_fen < 0 else paid
        service.record_payment(session, actor, claim_id, paid_fen=signed, reference=reference, now=now)


def _reconcile(actor: Actor, claim_id: str, form: Form, now: datetime) -> None:
    reason = form.text("reason", most=1000)
    if form.ok:
        with context().sessions.write() as session:
            service.reconcile_claim(session, actor, claim_id, reason=reason, now=now)


_STEPS: dict[str, Callable[[Actor, str, Form, datetime], None]] = {
    "submission": _submit,
    "withdrawal": _withdraw,
    "refusal": _refuse,
    "payment": _book_payment,
    "reconciliation": _reconcile,
}


def _show_list(actor: Actor, form: Form) -> str:
    current_actor(*READERS)
    with context().sessions.read() as session:
        claims = service.list_claims(session, actor)
        waiting = [
            row
            for row in service.list_redemptions(session, actor)
            if row.state in (RedemptionState.REQUESTED, RedemptionState.CHECKED)
        ]
        return render_template(
            "claims/list.html",
            claims=[
                (claim, session.get_one(Programme, claim.programme_id), _name_firm(session, claim)) for claim in claims
            ],
            redemptions=[_view_redemption(session, actor, row) for row in waiting],
            programmes=[row for row in list_programmes(session) if row.objects_held],
            firms=list_organisations(session, None),
            form=form,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _show_claim(actor: Actor, claim_id: str, form: Form, sent: str) -> str:
    with context().sessions.read() as session:
        claim = service.find_claim(session, actor, claim_id)
        lines = service.list_lines(session, claim.id)
        firms = {line.organisation_id: find_organisation(session, line.organisation_id).name for line in lines}
        firms |= {
            item["organisation_id"]: find_organisation(session, item["organisation_id"]).name for item in claim.left_out
        }
        return render_template(
            "claims/claim.html",
            claim=claim,
            programme=session.get_one(Programme, claim.programme_id),
            lines=[
                (line, firms[line.organisation_id], _contract_of(session, line.grant_id), month_key(line.booked_at))
                for line in lines
            ],
            firms=firms,
            drafter=name_person(session, claim.drafted_by),
            submitter=name_person(session, claim.submitted_by) if claim.submitted_by else "",
            drafted_it=claim.drafted_by == actor.user_id,
            difference_fen=None if claim.paid_fen is None else claim.paid_fen - claim.amount_fen,
            form=form,
            sent=sent,
            blank=Form(),
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _view_redemption(session: Session, actor: Actor, row: Redemption) -> tuple[Redemption, str, str, bool]:
    firm = find_organisation(session, row.organisation_id).name
    return row, firm, _contract_of(session, row.grant_id), row.checked_by == actor.user_id


def _contract_of(session: Session, grant_id: str) -> str:
    return session.get_one(Application, session.get_one(Grant, grant_id).application_id).contract_no


def _name_firm(session: Session, claim: Claim) -> str:
    return find_organisation(session, claim.organisation_id).name if claim.organisation_id else ""
