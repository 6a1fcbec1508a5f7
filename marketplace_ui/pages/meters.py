"""The operator's view of the token meters: what was billed beside what engines counted, and allowances to be closed.

The auditor sees all of it and changes nothing. It leaves comparing to `hub.metering` and closing to `hub.orders`.
"""

from flask import Blueprint, redirect, render_template
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.metering.reconciling import list_unbilled, reconcile
from hub.metering.tables import EngineWitness
from hub.orders import service as orders
from hub.orders.tables import Allowance
from hub.organisations.service import list_organisations
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice

blueprint = Blueprint("meters", __name__)
NOTICES = {
    "closed": (
        "额度已关闭：已到达的用量和引擎见证的用量已计费，余款已退回企业。",
        "The allowance is closed: usage that arrived or that engines witnessed is billed, the rest is free again.",
    )
}


@blueprint.get("/operator/meters")
def show_meters() -> str:
    return _show(current_actor(*READERS), Form(), "")


@blueprint.post("/operator/allowances/<allowance_id>/close")
def close_allowance(allowance_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    reason = form.text("reason", required=True, most=500)
    with form.catching("reason"):
        if form.ok:
            with context().sessions.write() as session:
                orders.end_lost_allowance(session, actor, allowance_id, reason=reason, now=context().clock())
    return redirect("/operator/meters?done=closed") if form.ok else (_show(actor, form, allowance_id), 422)


def _show(actor: Actor, form: Form, refused_id: str) -> str:
    now = context().clock()
    with context().sessions.read() as session:
        overdue = orders.list_overdue_allowances(session, actor, now)
        return render_template(
            "operator/meters.html",
            engines=reconcile(session, now),
            overdue=_list_witnessed(session, overdue),
            firms={row.id: row.name for row in list_organisations(session)},
            form=form,
            refused_id=refused_id,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )


def _list_witnessed(session: Session, overdue: list[Allowance]) -> list[tuple[Allowance, list[EngineWitness]]]:
    """Return each allowance with the calls on it that only the engines know."""
    rows = list_unbilled(session, [allowance.id for allowance in overdue])
    return [(allowance, [row for row in rows if row.allowance_id == allowance.id]) for allowance in overdue]
