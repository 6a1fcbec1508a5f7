"""The operator's settlement desk: doubtful device time, corrections of bills, payouts and the bank's answers.

The auditor sees all of it and changes nothing. It leaves every rule to the services.
"""

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.compute.meter_review import list_meters
from hub.compute.tables import MeterState
from hub.orders.call_corrections import CallsWanted, bill_late_calls, propose_call_correction
from hub.orders.call_figures import CallFigures, list_late
from hub.orders.correction_steps import APPROVAL_LIMIT_FEN, list_corrections
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.deciding import decide_correction
from hub.orders.rentals import decide_meter
from hub.orders.tables import Fault
from hub.organisations.service import list_organisations
from hub.payouts.service import conclude_payout, list_payouts, send_payout
from hub.payouts.tables import PayoutState
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import read_notice

blueprint = Blueprint("settlement", __name__)
SHOWN = 50
NOTICES = {
    "meter": ("计量处理结果已记录。", "The decision on the report is recorded."),
    "posted": ("更正已入账，企业账单可见。", "The correction is posted and stands on the firm’s statement."),
    "proposed": (
        "更正超过限额，待另一名运营人员批准。",
        "Above the limit: it waits for another operator.",
    ),
    "decided": ("更正的审批结果已记录。", "The decision on the correction is recorded."),
    "sent": ("付款已发出，等待银行答复。", "The payout is sent; the bank’s answer is awaited."),
    "concluded": ("付款结果已记录。", "What became of the payout is recorded."),
}


@blueprint.get("/operator/settlement")
def show_desk() -> str:
    actor = current_actor()
    actor.require(*READERS)
    asked = {name: request.args[name] for name in ("order_id", "bill_line_id") if request.args.get(name)}
    return _show(actor, Form(asked), "calls" if "bill_line_id" in asked else "correct")


@blueprint.post("/operator/settlement/meters/<record_id>")
def judge_meter(record_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    reason = form.text("reason", required=True, most=500)
    device_ms = form.whole("device_ms", least=0, most=10**13)
    with form.catching("reason", "device_ms"):
        if form.ok:
            with context().sessions.write() as session:
                decide_meter(
                    session,
                    actor,
                    record_id,
                    accept=form.value("decision") == "accept",
                    reason=reason,
                    device_ms=device_ms,
                    now=context().clock(),
                )
    return _answer(actor, form, record_id, "meter")


@blueprint.post("/operator/settlement/corrections")
def correct() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    order_id = form.text("order_id", required=True, most=60)
    reason = form.text("reason", required=True, most=500)
    fault = form.value("fault") or None
    metered = None
    if fault is None:
        metered = {name: form.whole(name, least=0, most=10**13) or 0 for name in ("device_ms", "trained_tokens")}
    done = "posted"
    with form.catching("order_id", "reason", "fault", "device_ms", "trained_tokens"):
        if form.ok:
            with context().sessions.write() as session:
                wanted = Wanted(reason, metered, fault)
                version = propose_correction(session, actor, order_id, wanted, now=context().clock())
                done = str(version.state)
    return _answer(actor, form, "correct", done)


@blueprint.post("/operator/settlement/call-corrections")
def correct_calls() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    line_id = form.text("bill_line_id", required=True, most=60)
    reason = form.text("call_reason", required=True, most=500)
    fault = form.value("call_fault") or None
    calls = _read_calls(form, figures=fault is None)
    done = "posted"
    with form.catching("bill_line_id", "call_reason", "call_fault", "calls"):
        if form.ok:
            with context().sessions.write() as session:
                wanted = CallsWanted(reason, calls, fault)
                version = propose_call_correction(session, actor, line_id, wanted, now=context().clock())
                done = str(version.state)
    return _answer(actor, form, "calls", done)


@blueprint.post("/operator/settlement/late-calls")
def bill_late() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    reason = form.text("late_reason", required=True, most=500)
    epoch, seq = (form.whole(name, least=0, most=10**15) or 0 for name in ("gateway_epoch", "seq"))
    with form.catching("late_reason"):
        if form.ok:
            with context().sessions.write() as session:
                source = (form.value("gateway_id"), epoch, seq)
                bill_late_calls(session, actor, [source], reason=reason, now=context().clock())
    return _answer(actor, form, "late", "posted")


def _read_calls(form: Form, *, figures: bool) -> list[CallFigures]:
    """Return the calls of the form's lines; a line that is none is refused by its number."""
    calls = []
    for number, text in enumerate(form.value("calls").splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        request_id, _, attempt = words[0].partition(":")
        numbers = [attempt or "0", *words[1:]]
        if len(words) != (4 if figures else 1) or not all(word.isascii() and word.isdecimal() for word in numbers):
            form.refuse(
                "calls",
                f"第 {number} 行“{text[:80]}”格式不对：请求号:次数 输入 缓存 输出。",
                f"Line {number}, '{text[:80]}', is none: give request:attempt prompt cached completion.",
            )
            return []
        prompt, cached, completion = (int(word) for word in words[1:]) if figures else (0, 0, 0)
        calls.append(CallFigures(request_id, int(attempt or 0), prompt, cached, completion))
    return calls


@blueprint.post("/operator/settlement/corrections/<version_id>")
def decide(version_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    reason = form.text("reason", most=500)
    with form.catching("reason"):
        if form.ok:
            with context().sessions.write() as session:
                approve = form.value("decision") == "approve"
                decide_correction(session, actor, version_id, approve=approve, reason=reason, now=context().clock())
    return _answer(actor, form, version_id, "decided")


@blueprint.post("/operator/settlement/payouts/<payout_id>/send")
def send(payout_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    with form.catching(), context().sessions.write() as session:
        send_payout(session, actor, payout_id, now=context().clock())
    return _answer(actor, form, payout_id, "sent")


@blueprint.post("/operator/settlement/payouts/<payout_id>/result")
def conclude(payout_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    result = form.choice("result", PayoutState)
    reference = form.text("bank_reference", most=100)
    reason = form.text("reason", most=500)
    with form.catching("result", "bank_reference", "reason"):
        if form.ok and result is not None:
            with context().sessions.write() as session:
                conclude_payout(
                    session,
                    actor,
                    payout_id,
                    result=result,
                    bank_reference=reference,
                    reason=reason,
                    now=context().clock(),
                )
    return _answer(actor, form, payout_id, "concluded")


def _answer(actor: Actor, form: Form, sent: str, done: str) -> Response | tuple[str, int]:
    return redirect(f"/operator/settlement?done={done}") if form.ok else (_show(actor, form, sent), 422)


def _show(actor: Actor, form: Form, sent: str) -> str:
    """Return the page; `sent` says which of its forms was refused."""
    with context().sessions.read() as session:
        return render_template(
            "operator/settlement.html",
            meters=list_meters(session, state=MeterState.QUARANTINED, limit=SHOWN),
            corrections=list_corrections(session)[:SHOWN],
            late=list_late(session, limit=SHOWN),
            payouts=list_payouts(session)[:SHOWN],
            firms={row.id: row.name for row in list_organisations(session)},
            faults=(Fault.PLATFORM, Fault.PROVIDER),
            limit_fen=APPROVAL_LIMIT_FEN,
            results=(PayoutState.PAID, PayoutState.FAILED, PayoutState.UNKNOWN),
            form=form,
            blank=Form(),
            sent=sent,
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
        )
