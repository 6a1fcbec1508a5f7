"""Runs: the list, and one run's page from acceptance to its version: progress, curve, scores, money, what went wrong.

It leaves what happens before the order to `tuning` and the live stream to the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor
from hub.catalogue.service import model_of
from hub.catalogue.tables import ModelVersion
from hub.compute.tables import Offer
from hub.deployments.service import find_open_deployment
from hub.events.tables import Event
from hub.orders.service import find_order
from hub.orders.tables import Charge, Order, Quote
from hub.tuning import service, stopping
from hub.tuning.health import check_health
from hub.tuning.log_lines import read_log
from hub.tuning.progress import locate_attempt, read_curve, read_tail, thin
from hub.tuning.publishing import measure_again, override_gate
from hub.tuning.queueing import find_place
from hub.tuning.rerunning import compare_rerun, rerun
from hub.tuning.states import DELIVERED, TERMINAL, UNORDERED
from hub.tuning.stopping import PAUSABLE
from hub.tuning.tables import Run
from hub.web import context, current_actor
from marketplace_ui.durations import show_duration
from marketplace_ui.forms import Form
from marketplace_ui.gate_view import view_gate
from marketplace_ui.journey_words import explain_reason
from marketplace_ui.layout import read_notice, translate
from marketplace_ui.pages.tuning import render_order
from marketplace_ui.recipe_words import say_recipe
from marketplace_ui.rerun_words import name_difference, show_side
from marketplace_ui.run_live import read_live
from marketplace_ui.tryout_view import view_tryouts
from marketplace_ui.tuning_estimates import name_programmes, number_rules
from marketplace_ui.words import say

blueprint = Blueprint("runs", __name__)
blueprint.add_app_template_global(explain_reason, "explain_reason")
blueprint.add_app_template_global(say_recipe, "say_recipe")
blueprint.add_app_template_global(show_duration, "duration")
TABLE_POINTS = 40
NOTICES = {
    "paused": ("已请求暂停，当前步结束后生效。", "Pause requested; it takes effect after the current step."),
    "resumed": ("已重新排队，将从检查点继续。", "Queued again; it goes on from its checkpoint."),
    "measuring": ("已安排重新测评。", "It will be measured again."),
    "published": ("已记录理由，模型已发布。", "Your reason is recorded and the model is published."),
    "accepted": ("已接受报价，资金已冻结，任务开始排队。", "Accepted: the money is held and the run is queued."),
    "cancelled": (
        "已请求取消；训练到下一个安全点停止，只收已计量部分。",
        "Cancellation requested; training stops at its next safe point and only the metered part is billed.",
    ),
}


@dataclass(frozen=True)
class Moment:
    """One thing that happened to a run, in words."""

    text: str
    note: str
    at: Any


@dataclass(frozen=True)
class Score:
    """Held-out figures of base or adapter; the interval is None where the trainer gave none."""

    title: str
    loss: float | None
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Money:
    """The order of a run with its quote and charges; `released_fen` went back once it closed."""

    order: Order
    quote: Quote
    charges: Sequence[Charge]
    released_fen: int


@blueprint.get("/runs")
def list_runs() -> str:
    actor = current_actor()
    with context().sessions.read() as session:
        runs = service.list_runs(session, actor)
        orders = {run.id: find_order(session, run.order_id) for run in runs if run.order_id}
        return render_template("runs/list.html", runs=runs, orders=orders, terminal=TERMINAL)


@blueprint.get("/runs/<run_id>")
def show_run(run_id: str) -> str:
    return render_run(run_id, Form(), {})


def render_run(run_id: str, form: Form, answers: Mapping[str, str]) -> str:
    """Return a run's page; `form` and `answers` carry a try-out that was sent without scripts.

    Raises:
        NotFoundError: no run of that id for this person.
    """
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, run_id)
        if run.state in UNORDERED:
            return render_order(session, actor, run, form)
        return _show(session, actor, run, form, answers)


@blueprint.post("/runs/<run_id>/cancel")
def cancel_run(run_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        stopping.cancel_run(session, actor, run_id, now=context().clock())
    return redirect(f"/runs/{run_id}?done=cancelled")


@blueprint.post("/runs/<run_id>/pause")
def pause_run(run_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        stopping.pause_run(session, actor, run_id, now=context().clock())
    return redirect(f"/runs/{run_id}?done=paused")


@blueprint.post("/runs/<run_id>/resume")
def resume_run(run_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        stopping.resume_run(session, actor, run_id, now=context().clock())
    return redirect(f"/runs/{run_id}?done=resumed")


@blueprint.get("/runs/<run_id>/rerun")
def show_rerun(run_id: str) -> str:
    """What the same run would differ in today, and the button that enters it."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, run_id)
        found = compare_rerun(session, actor, run_id, home=context().settings.home, now=context().clock())
        rows = [
            (name_difference(item["name"]), item["name"], show_side(item, "then"), show_side(item, "now"))
            for item in found["differences"]
        ]
        mine = run.organisation_id == actor.organisation_id
        return render_template("runs/rerun.html", run=run, rows=rows, count=len(found["compared"]), mine=mine)


@blueprint.post("/runs/<run_id>/rerun")
def rerun_run(run_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        again = rerun(session, actor, run_id, home=context().settings.home, now=context().clock())
        return redirect(f"/runs/{again.id}")


@blueprint.post("/runs/<run_id>/publish")
def publish_run(run_id: str) -> Response:
    actor = current_actor()
    reason = Form.of_request().text("reason", required=True, most=500)
    with context().sessions.write() as session:
        override_gate(session, actor, run_id, reason=reason, now=context().clock())
    return redirect(f"/runs/{run_id}?done=published")


@blueprint.post("/runs/<run_id>/measure")
def measure_run(run_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        measure_again(session, actor, run_id, now=context().clock())
    return redirect(f"/runs/{run_id}?done=measuring")


def _show(session: Session, actor: Actor, run: Run, form: Form, answers: Mapping[str, str]) -> str:
    home = context().settings.home
    out = locate_attempt(home, run.id, run.attempt)
    lines = read_tail(out)
    curve = read_curve(home, run.id)
    version = session.get(ModelVersion, run.version_id) if run.version_id else None
    events = _list_events(session, run)
    return render_template(
        "runs/run.html",
        run=run,
        live=read_live(session, run, lines),
        checks=check_health(curve),
        log=read_log(out),
        form=form,
        answers=answers,
        tryout=view_tryouts(session, run, home, mine=run.organisation_id == actor.organisation_id),
        story=[_tell(event) for event in events],
        place=find_place(session, run, home, context().clock()),
        pausable=run.state in PAUSABLE and not run.pause_requested_at and not run.cancel_requested_at,
        served=(run.gate or {}).get("served"),
        parity=(run.gate or {}).get("parity"),
        gate=view_gate(run, home, mine=run.organisation_id == actor.organisation_id),
        last_seq=events[-1].seq if events else 0,
        curve=thin(curve, TABLE_POINTS, keep=lambda point: point.get("valid_loss") is not None),
        over=run.state in TERMINAL,
        delivered=run.state in DELIVERED,
        scores=_list_scores(run.metrics),
        attempts=service.list_attempts(session, run),
        money=_read_money(session, run),
        offer=session.get(Offer, run.offer_id) if run.offer_id else None,
        version=version,
        model=model_of(session, version) if version else None,
        deployment=find_open_deployment(session, version.id) if version else None,
        programmes=name_programmes(session),
        rules=number_rules(session),
        mine=run.organisation_id == actor.organisation_id,
        notice=read_notice(NOTICES),
    )


def _list_events(session: Session, run: Run) -> list[Event]:
    query = select(Event).where(Event.organisation_id == run.organisation_id, Event.subject == run.id)
    return list(session.scalars(query.order_by(Event.seq)))


def _tell(event: Event) -> Moment:
    kind = event.topic.partition(".")[2]
    own = {
        "created": translate("建立任务", "Created"),
        "cancel_requested": translate("请求取消", "Cancellation requested"),
        "pause_requested": translate("请求暂停", "Pause requested"),
        "proven": translate("上线核验通过", "Proven on the serving engine"),
        "proof_missing": translate("未能上线核验", "The serving engine could not be asked"),
        "proof_failed": translate("上线核验不一致，已隔离", "The engine serves something else: quarantined"),
        "gate_overridden": translate("越过门禁发布", "Published past the gate"),
    }
    text = own.get(kind) or say("run", kind)
    return Moment(text, explain_reason(event.payload.get("reason_code")), event.occurred_at)


def _list_scores(metrics: Mapping[str, Any] | None) -> list[Score]:
    found = metrics or {}
    return [
        Score(
            key,
            part.get("loss"),
            part.get("exact_match"),
            part.get("exact_match_low"),
            part.get("exact_match_high"),
        )
        for key in ("base", "adapter")
        if isinstance(part := found.get(key), Mapping)
    ]


def _read_money(session: Session, run: Run) -> Money | None:
    if run.order_id is None:
        return None
    order = find_order(session, run.order_id)
    charges = session.scalars(select(Charge).where(Charge.order_id == order.id).order_by(Charge.id)).all()
    released = order.held_fen - order.charged_fen if order.closed_at else 0
    return Money(order, session.get_one(Quote, order.quote_id), charges, released)
