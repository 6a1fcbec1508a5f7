"""The pages of the authority report: preview of a period, issue, files, what changed against the last one.

It leaves counting to `hub.claims`; operator and auditor read, the operator issues.
"""

import json
from typing import Any

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.claims import service
from hub.claims.figures import FIRM_FIGURES, FUND_FIGURES
from hub.claims.reporting import FUND
from hub.claims.tables import AuthorityReport
from hub.ledger.periods import month_key
from hub.organisations.service import list_organisations
from hub.vouchers.service import list_programmes
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice, translate
from marketplace_ui.people import name_person
from marketplace_ui.period_form import read_period, read_range

blueprint = Blueprint("authority_reports", __name__)
NOTICES = {"issued": ("报告已出具，期间已关账。", "The report is issued; its months are closed.")}


@blueprint.get("/operator/reports")
def list_reports() -> str:
    return _show_list(current_actor(*READERS), Form())


@blueprint.post("/operator/reports")
def issue_report() -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    period = read_period(form)
    with form.catching("period"):
        if form.ok:
            with context().sessions.write() as session:
                service.issue_report(session, actor, period, now=context().clock())
    return redirect(f"/operator/reports/{period}?done=issued") if form.ok else (_show_list(actor, form), 422)


@blueprint.get("/operator/reports/<period>")
def show_report(period: str) -> str:
    current_actor(*READERS)
    with context().sessions.read() as session:
        issued = next((row for row in service.list_reports(session) if row.period == period), None)
        shown = issued.json_text if issued else service.build_report(session, period)[0]
        return render_template(
            "claims/report.html",
            period=period,
            issued=issued,
            issuer=name_person(session, issued.issued_by) if issued else "",
            report=json.loads(shown),
            same=service.check_report(session, issued) if issued else None,
            changes=service.diff_against_last(session, issued) if issued and issued.previous_id else [],
            last=session.get_one(AuthorityReport, issued.previous_id).period if issued and issued.previous_id else "",
            programmes={row.code: translate(row.title_zh, row.title_en) for row in list_programmes(session)},
            firms={row.uscc: row.name for row in list_organisations(session)},
            fund=FUND,
            firm_figures=FIRM_FIGURES,
            fund_figures=FUND_FIGURES,
            notice=read_notice(NOTICES),
        )


def _show_list(actor: Actor, form: Form) -> str:
    current_actor(*READERS)
    asked = Form({name: request.args.get(name) or form.value(name) for name in ("period", "from_day", "to_day")})
    period = read_range(asked.value) or asked.value("period") or month_key(context().clock())
    with context().sessions.read() as session:
        return render_template(
            "claims/reports.html",
            rows=[(row, name_person(session, row.issued_by)) for row in service.list_reports(session)],
            period=period,
            preview=_preview(asked, period),
            asked=asked,
            figures=("awarded_fen", "used_fen", "claimed_fen", "left_at_end_fen"),
            form=form,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _preview(asked: Form, period: str) -> list[dict[str, Any]]:
    """Return the programmes of a period with figures; none, and a refusal, for a period that nobody can read."""
    found: list[dict[str, Any]] = []
    with asked.catching("period"), context().sessions.read() as session:
        found = json.loads(service.build_report(session, period)[0])["programmes"]
    return [item for item in found if item["firms"] or item["fund"]["released_fen"]]
