"""One grant: balances, papers of its months, redemption, what was claimed, revocation; and the firm's own steps of an
application: completing, withdrawing, appealing.

It leaves who may do what to `hub.vouchers` and `hub.claims`.
"""

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.claims import service as claims
from hub.claims.tables import RedemptionState
from hub.errors import NotFoundError
from hub.ledger.periods import month_key
from hub.vouchers import service
from hub.vouchers.papers import add_paper, list_papers, withdraw_paper
from hub.vouchers.rules import read_body
from hub.vouchers.service import GrantBalance
from hub.vouchers.tables import Application, PaperKind
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.kept_papers import read_kept, take_paper
from marketplace_ui.layout import BUYERS, read_notice

blueprint = Blueprint("grants", __name__)
NOTICES = {
    "added": ("材料已保存。", "The paper is kept."),
    "removed": ("材料已撤下，此后的申报不再使用。", "The paper is taken out of later claims."),
    "requested": (
        "兑付申请已提交，由两人审核后付款。",
        "The redemption is requested; two persons decide, then it is paid.",
    ),
    "withdrawn": ("兑付申请已撤回，费用可重新申请。", "The request is taken back; its fees can be asked for again."),
    "revoked": ("券已撤销，剩余额度已回到资金池。", "The voucher is revoked; what was left went back to the fund."),
}


@blueprint.get("/vouchers/grants/<grant_id>")
def show_grant(grant_id: str) -> str:
    return _show(current_actor(), grant_id, Form(), "")


@blueprint.post("/vouchers/grants/<grant_id>/papers")
def keep_paper(grant_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    kind, paper = form.choice("kind", PaperKind), take_paper(form, "paper")
    if paper is None and not form.error("paper"):
        form.refuse("paper", "请选择文件。", "Choose the document.")
    amount, month = form.yuan("amount_fen"), form.text("month", required=True)
    number, issuer_uscc = form.text("number", most=60), form.text("issuer_uscc", most=18)
    with form.catching("month", "number", "issuer_uscc", "amount_fen"):
        if form.ok and kind is not None and paper is not None:
            with context().sessions.write() as session:
                add_paper(
                    session,
                    actor,
                    grant_id,
                    month=month,
                    kind=kind,
                    name=paper.name,
                    digest=paper.digest,
                    number=number,
                    issuer_uscc=issuer_uscc,
                    amount_fen=amount,
                    now=context().clock(),
                )
    if form.ok:
        return redirect(f"/vouchers/grants/{grant_id}?done=added")
    return _show(actor, grant_id, form, "paper"), 422


@blueprint.post("/vouchers/grants/<grant_id>/papers/<paper_id>/withdraw")
def remove_paper(grant_id: str, paper_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        withdraw_paper(session, actor, paper_id, now=context().clock())
    return redirect(f"/vouchers/grants/{grant_id}?done=removed")


@blueprint.post("/vouchers/grants/<grant_id>/redemptions")
def request_redemption(grant_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    chosen = [name.removeprefix("charge-") for name in form.values if name.startswith("charge-")]
    with form.catching(), context().sessions.write() as session:
        claims.request_redemption(session, actor, grant_id, charge_ids=chosen, now=context().clock())
    if form.ok:
        return redirect(f"/vouchers/grants/{grant_id}?done=requested")
    return _show(actor, grant_id, form, "redemption"), 422


@blueprint.post("/vouchers/grants/<grant_id>/redemptions/<redemption_id>/withdraw")
def withdraw_redemption(grant_id: str, redemption_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    with form.catching(), context().sessions.write() as session:
        claims.withdraw_redemption(session, actor, redemption_id, now=context().clock())
    if form.ok:
        return redirect(f"/vouchers/grants/{grant_id}?done=withdrawn")
    return _show(actor, grant_id, form, "redemption"), 422


@blueprint.post("/vouchers/grants/<grant_id>/revoke")
def revoke_grant(grant_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    reason = form.text("reason", required=True, most=1000)
    with form.catching("reason"):
        if form.ok:
            with context().sessions.write() as session:
                service.revoke_grant(session, actor, grant_id, reason=reason, now=context().clock())
    if form.ok:
        return redirect(f"/vouchers/grants/{grant_id}?done=revoked")
    return _show(actor, grant_id, form, "revoke"), 422


@blueprint.post("/vouchers/applications/<application_id>/<any(resubmit,withdraw,appeal):step>")
def take_step(application_id: str, step: str) -> Response | tuple[str, int]:
    actor, form, now = current_actor(), Form.of_request(), context().clock()
    asked, paper, reason = form.yuan("asked_fen"), take_paper(form, "paper"), form.text("reason")
    with form.catching("asked_fen", "reason", "evidence"):
        if form.ok:
            with context().sessions.write() as session:
                if step == "withdraw":
                    service.withdraw_application(session, actor, application_id, now=now)
                elif step == "appeal":
                    service.appeal_application(session, actor, application_id, reason=reason, now=now)
                else:
                    given = [{"kind": form.value("kind"), "name": paper.name, "digest": paper.digest}] if paper else []
                    application = service.find_application(session, actor, application_id)
                    service.resubmit_application(
                        session,
                        actor,
                        application_id,
                        asked_fen=application.asked_fen if asked is None else asked,
                        evidence=given,
                        now=now,
                    )
    if form.ok:
        return redirect(f"/vouchers/applications/{application_id}?done={step}")
    return render_template("vouchers/refused.html", form=form, application_id=application_id), 422


def _show(actor: Actor, grant_id: str, form: Form, sent: str) -> str:
    with context().sessions.read() as session:
        row = _find(service.list_grants(session, None if actor.reads_all else actor.organisation_id), grant_id)
        rule = read_body(row.rule_version.body)
        own = row.grant.organisation_id == actor.organisation_id and actor.role in BUYERS
        lines = [
            (line, claim)
            for line, claim in claims.list_own_lines(session, row.grant.organisation_id)
            if line.grant_id == grant_id
        ]
        redemptions = [item for item in claims.list_redemptions(session, actor) if item.grant_id == grant_id]
        return render_template(
            "vouchers/grant.html",
            row=row,
            rule=rule,
            application=session.get_one(Application, row.grant.application_id),
            papers=list_papers(session, [grant_id]),
            kinds=list(PaperKind),
            month=month_key(context().clock()),
            redeemable=claims.list_redeemable(session, row.grant) if own else [],
            redemptions=redemptions,
            asked=any(item.state in (RedemptionState.REQUESTED, RedemptionState.CHECKED) for item in redemptions),
            taken_back=claims.sum_taken_back(session, [item.id for item in redemptions]),
            lines=lines,
            form=form,
            sent=sent,
            kept=read_kept(form, "paper"),
            own_firm=own,
            writes=own or actor.role is Role.OPERATOR,
            officer=actor.role is Role.OPERATOR,
            reads=actor.reads_all,
            notice=read_notice(NOTICES),
        )


def _find(rows: list[GrantBalance], grant_id: str) -> GrantBalance:
    for row in rows:
        if row.grant.id == grant_id:
            return row
    raise NotFoundError.of("grant", grant_id)
