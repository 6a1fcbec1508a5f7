"""What an organisation earned on which sale, with every split, and its payouts.

It leaves splitting to `hub.orders` and the way to the bank to `hub.payouts`.
"""

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.ids import new_id
from hub.orders.service import list_earnings
from hub.payouts.debts import read_debt
from hub.payouts.service import earned, list_payouts, request_payout, withdraw_payout
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice

blueprint = Blueprint("earnings", __name__)
EARNERS = (Role.PROVIDER, Role.INTEGRATOR, Role.FACTORY, Role.DEVELOPER)
NOTICES = {
    "asked": ("已申请付款，款项已冻结待付。", "The payout is asked for and its money held."),
    "back": ("付款申请已撤回，款项可重新申请。", "The payout is taken back; its money is free again."),
}


@blueprint.get("/earnings")
def show_earnings() -> str:
    return _show(_require_earner(), Form())


@blueprint.post("/earnings/payouts")
def ask() -> Response | tuple[str, int]:
    actor, form = _require_earner(), Form.of_request()
    amount = form.yuan("amount_fen")
    key = form.text("idempotency_key", required=True, most=200)
    if not amount:
        form.refuse("amount_fen", "请填写大于 0 的金额。", "Give an amount above 0.")
    with form.catching("amount_fen"):
        if form.ok and amount:
            with context().sessions.write() as session:
                request_payout(session, actor, amount_fen=amount, idempotency_key=key, now=context().clock())
    return redirect("/earnings?done=asked") if form.ok else (_show(actor, form), 422)


@blueprint.post("/earnings/payouts/<payout_id>/withdraw")
def take_back(payout_id: str) -> Response | tuple[str, int]:
    actor, form = _require_earner(), Form.of_request()
    with form.catching(), context().sessions.write() as session:
        withdraw_payout(session, actor, payout_id, now=context().clock())
    return redirect("/earnings?done=back") if form.ok else (_show(actor, form), 422)


def _require_earner() -> Actor:
    actor = current_actor()
    actor.require(*EARNERS)
    return actor


def _show(actor: Actor, form: Form) -> str:
    with context().sessions.read() as session:
        available, on_its_way = earned(session, actor.organisation_id)
        return render_template(
            "statement/earnings.html",
            form=form,
            rows=list_earnings(session, actor.organisation_id),
            payouts=list_payouts(session, organisation_id=actor.organisation_id),
            available_fen=available,
            on_its_way_fen=on_its_way,
            owed_fen=read_debt(session, actor.organisation_id),
            key=new_id("idem"),
            notice=read_notice(NOTICES),
        )
