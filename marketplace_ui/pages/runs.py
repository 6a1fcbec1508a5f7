"""Runs: the list, and one run's page from acceptance to its version: progress, curve, scores, money, what went wrong.

It leaves what happens before the order to `tuning` and the live stream to the API.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor
from hub.catalogue.service import model_of
from hub.catalogue.tables import ModelVersion, VersionState
from hub.compute.tables import Offer
from hub.datasets.tables import Dataset, DatasetVersion
from hub.deployments.service import find_open_deployment
from hub.errors import NotFoundError
from hub.orders.service import find_order
from hub.orders.tables import Charge, Order, Quote
from hub.tuning import service, stopping
from hub.tuning.examining import read_cases
from hub.tuning.gate import is_refuted
from hub.tuning.health import check_health
from hub.tuning.log_lines import read_log
from hub.tuning.progress import locate_attempt, locate_run, read_curve, read_tail, thin
from hub.tuning.publishing import MOST_REASON_CHARS, is_being_measured, measure_again, override_gate
from hub.tuning.queueing import find_place
from hub.tuning.rerunning import compare_rerun, rerun
from hub.tuning.states import DELIVERED, TERMINAL, UNORDERED, RunState
from hub.tuning.stopping import PAUSABLE
from hub.tuning.tables import Run
from hub.web import context, current_actor
from marketplace_ui.durations import show_duration
from marketplace_ui.forms import Form
from marketplace_ui.gate_view import view_gate, write_cases
from marketplace_ui.journey_words import explain_reason
from marketplace_ui.layout import read_notice
from marketplace_ui.pages.tuning import render_order
from marketplace_ui.recipe_words import say_recipe
from marketplace_ui.rerun_words import name_difference, show_side
from marketplace_ui.run_live import read_live
from marketplace_ui.run_story import list_events, tell_event
from marketplace_ui.tryout_view import view_tryouts
from marketplace_ui.tuning_estimates import name_programmes, number_rules

blueprint = Blueprint("runs", __name__)
blueprint.add_app_template_global(explain_reason, "explain_reason")
blueprint.add_app_template_global(say_recipe, "say_recipe")
blueprint.add_app_template_global(show_duration, "duration")
PAGE_RUNS = 50
TABLE_POINTS = 40
RELEASED = "released"
"""How people are told of a held run whose version was published all the same; the run itself stays held."""
NOTICES = {
    "paused": ("已请求暂停，当前步结束后生效。", "Pause requested; it takes effect after the current step."),
    "resumed": ("已重新排队，将从检查点继续。", "Queued again; it goes on from its checkpoint."),
    "measuring": ("已安排重新测评，结果出来后显示在下面。", "It is being measured again; the result will show below."),
    "published": ("已记录理由，模型已发布。", "Your reason is recorded and the model is published."),
    "accepted": ("已接受报价，资金已冻结，任务开始排队。", "Accepted: the money is held and the run is queued."),
    "cancelled": (
        "已请求取消；训练到下一个安全点停止，只收已计量部分。",
        "Cancellation requested; training stops at its next safe point and only the metered part is billed.",
    ),
}


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
        found = service.list_runs(session, actor, limit=PAGE_RUNS + 1, before=request.args.get("before"))
        runs = found[:PAGE_RUNS]
        orders = {run.id: find_order(session, run.order_id) for run in runs if run.order_id}
        older = runs[-1].id if len(found) > PAGE_RUNS else None
        return render_template("runs/list.html", runs=runs, orders=orders, older=older)


@blueprint.get("/runs/<run_id>")
def show_run(run_id: str) -> str:
    return render_run(run_id, Form(), {})


def render_run(run_id: str, form: Form, answers: Mapping[str, str], *, refused: Form | None = None) -> str:
    """Return a run's page; `form` and `answers` carry a try-out that was sent without scripts.

    `refused` is another step that the run did not allow, with its message and what was typed.

    Raises:
        NotFoundError: no run of that id for this person.
    """
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, run_id)
        if run.state in UNORDERED:
            return render_order(session, actor, run, refused or form)
        return _show(session, actor, run, form, answers, refused or Form())


@blueprint.app_template_global("state_of_run")
def tell_state(run: Run) -> str:
    """Return the state of a run as people are told it."""
    return RELEASED if run.state is RunState.HELD and run.version_id is not None else str(run.state)


@blueprint.post("/runs/<run_id>/cancel")
def cancel_run(run_id: str) -> Response | tuple[str, int]:
    return _take_step(run_id, stopping.cancel_run, done="cancelled")


@blueprint.post("/runs/<run_id>/pause")
def pause_run(run_id: str) -> Response | tuple[str, int]:
    return _take_step(run_id, stopping.pause_run, done="paused")


@blueprint.post("/runs/<run_id>/resume")
def resume_run(run_id: str) -> Response | tuple[str, int]:
    return _take_step(run_id, stopping.resume_run, done="resumed")


@blueprint.post("/runs/<run_id>/measure")
def measure_run(run_id: str) -> Response | tuple[str, int]:
    return _take_step(run_id, measure_again, done="measuring")


@blueprint.get("/runs/<run_id>/rerun")
def show_rerun(run_id: str) -> str:
    """What the same run would differ in today, and the button that enters it."""
    return _show_rerun(run_id, Form())


@blueprint.post("/runs/<run_id>/rerun")
def rerun_run(run_id: str) -> Response | tuple[str, int]:
    actor, form, again_id = current_actor(), Form(), ""
    with form.catching(), context().sessions.write() as session:
        again_id = rerun(session, actor, run_id, home=context().settings.home, now=context().clock()).id
    return redirect(f"/runs/{again_id}") if form.ok else (_show_rerun(run_id, form), 409)


@blueprint.post("/runs/<run_id>/publish")
def publish_run(run_id: str) -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    reason = form.text("reason", required=True, most=MOST_REASON_CHARS)
    if form.ok:
        with form.catching("reason"), context().sessions.write() as session:
            override_gate(session, actor, run_id, reason=reason, now=context().clock())
    if not form.ok:
        return render_run(run_id, Form(), {}, refused=form), 422
    return redirect(f"/runs/{run_id}?done=published")


@blueprint.get("/runs/<run_id>/cases.csv")
def send_cases(run_id: str) -> Response:
    """All held-out cases before and after, for the run's own organisation."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, run_id)
    if run.organisation_id != actor.organisation_id:
        raise NotFoundError.of("run", run_id)
    content = write_cases(read_cases(locate_run(context().settings.home, run.id)))
    headers = {"Content-Disposition": f"attachment; filename=cases-{run.id}.csv", "Cache-Control": "private, no-store"}
    return Response(content, content_type="text/csv; charset=utf-8", headers=headers)


def _take_step(run_id: str, step: Callable[..., Run], *, done: str) -> Response | tuple[str, int]:
    """Take a step that the run's state may not allow any more: then its page says so."""
    actor, form = current_actor(), Form()
    with form.catching(), context().sessions.write() as session:
        step(session, actor, run_id, now=context().clock())
    if not form.ok:
        return render_run(run_id, Form(), {}, refused=form), 409
    return redirect(f"/runs/{run_id}?done={done}")


def _show_rerun(run_id: str, form: Form) -> str:
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, run_id)
        found = compare_rerun(session, actor, run_id, home=context().settings.home, now=context().clock())
        rows = [
            (name_difference(item["name"]), item["name"], show_side(item, "then"), show_side(item, "now"))
            for item in found["differences"]
        ]
        mine = run.organisation_id == actor.organisation_id
        return render_template(
            "runs/rerun.html", run=run, rows=rows, count=len(found["compared"]), mine=mine, form=form
        )


def _show(session: Session, actor: Actor, run: Run, form: Form, answers: Mapping[str, str], refused: Form) -> str:
    home = context().settings.home
    out = locate_attempt(home, run.id, run.attempt)
    lines = read_tail(out)
    curve = read_curve(home, run.id)
    version = session.get(ModelVersion, run.version_id) if run.version_id else None
    measuring = is_being_measured(session, run)
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    events = list_events(session, run)
    return render_template(
        "runs/run.html",
        run=run,
        live=read_live(session, run, lines),
        checks=check_health(curve),
        log=read_log(out),
        form=form,
        answers=answers,
        tryout=view_tryouts(session, run, home, mine=run.organisation_id == actor.organisation_id),
        story=[tell_event(event) for event in events],
        place=find_place(session, run, home, context().clock()),
        pausable=run.state in PAUSABLE and not run.pause_requested_at and not run.cancel_requested_at,
        refuted=is_refuted(run.gate),
        served=(run.gate or {}).get("served"),
        parity=(run.gate or {}).get("parity"),
        gate=view_gate(session, run, home, mine=run.organisation_id == actor.organisation_id),
        measuring=measuring,
        refused=refused,
        data=data,
        dataset=session.get_one(Dataset, data.dataset_id),
        last_seq=events[-1].seq if events else 0,
        curve=thin(curve, TABLE_POINTS, keep=lambda point: point.get("valid_loss") is not None),
        over=run.state in TERMINAL,
        delivered=run.state in DELIVERED,
        scores=_list_scores(run.metrics),
        attempts=service.list_attempts(session, run),
        money=_read_money(session, run),
        offer=session.get(Offer, run.offer_id) if run.offer_id else None,
        version=version,
        usable=version is not None and version.state not in (VersionState.QUARANTINED, VersionState.RETIRED),
        model=model_of(session, version) if version else None,
        deployment=find_open_deployment(session, version.id) if version else None,
        programmes=name_programmes(session),
        rules=number_rules(session),
        mine=run.organisation_id == actor.organisation_id,
        notice=read_notice(NOTICES) if _is_true_still(run, measuring=measuring) else "",
    )


def _is_true_still(run: Run, *, measuring: bool) -> bool:
    """Whether the notice in the address still holds: one that came before the end of the run does not outlive it."""
    done = request.args.get("done", "")
    return {"published": run.version_id is not None, "measuring": measuring}.get(done, run.state not in TERMINAL)


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
