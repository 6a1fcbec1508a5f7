"""HTTP of tuning: runs from wish to version, their live stream, and offers published with their price.

It leaves executing to the worker: nothing here waits for a trainer.
"""

from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint

from hub.compute.answers import OfferRow
from hub.compute.api import present_offer
from hub.compute.service import find_provider, withdraw_offer
from hub.errors import InvalidValueError, NotFoundError
from hub.orders.answers import QuoteView
from hub.orders.present import present_order, present_quote
from hub.tuning import bodies, ordering, service, stopping
from hub.tuning.examining import read_cases
from hub.tuning.health import check_health
from hub.tuning.log_lines import read_log
from hub.tuning.offers import publish_offer
from hub.tuning.papers import build_bundle, build_manifest
from hub.tuning.progress import locate_attempt, locate_run, read_curve, read_tail
from hub.tuning.publishing import is_being_measured, measure_again, override_gate
from hub.tuning.queueing import find_place
from hub.tuning.rerunning import Comparison, check_confirmed, compare_rerun, rerun
from hub.tuning.scoring import Case, report_labels
from hub.tuning.streaming import Source, read_position, stream_run
from hub.tuning.submitting import submit_once
from hub.tuning.tryouts import request_tryout
from hub.web import context, current_actor

blueprint = APIBlueprint("tuning", __name__, url_prefix="/api/v1")


@blueprint.post("/runs")
def post_run(body: bodies.RunBody) -> tuple[dict[str, Any], int]:
    """Enter a run; its plan is made by the worker. The same Idempotency-Key again returns the same run."""
    actor = current_actor()
    key = request.headers.get("Idempotency-Key", "").strip() or None
    with context().sessions.write() as session:
        run = submit_once(
            session,
            actor.organisation_id,
            key=key,
            request=body.model_dump(mode="json"),
            create=lambda: service.create_run(
                session,
                actor,
                base_version_id=body.base,
                dataset_version_id=body.dataset_id,
                model_name=body.model_name,
                recipe=body.recipe,
                seed=body.seed,
                deploy_when_done=body.deploy_when_done,
                cost_centre=body.cost_centre,
                now=context().clock(),
            ),
        )
        return bodies.present_run(run), 202


@blueprint.get("/runs")
def get_runs() -> dict[str, Any]:
    """Return the organisation's runs, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        return {"runs": [bodies.present_run(run) for run in service.list_runs(session, actor)]}


@blueprint.get("/runs/<run_id>")
def get_run(path: bodies.RunPath) -> dict[str, Any]:
    """Return one run with plan, estimates by offer, attempts, newest progress, loss curve and its health.

    In the plan, `recipe` maps each value's name to {value, reason, reason_zh, source}, and `fixed` likewise what has no
    setting. `source` is data, owner's setting, our measurement, our default or a citation, several joined by "; ".
    `measuring`: the gate asks an engine once more about a held run.
    """
    actor = current_actor()
    home = context().settings.home
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
        lines = read_tail(locate_attempt(home, run.id, run.attempt))
        curve = read_curve(home, run.id)
        return bodies.present_run(run) | {
            "estimates": bodies.present_estimates(session, run),
            "attempts": bodies.present_attempts(session, run),
            "queue": bodies.present_place(find_place(session, run, home, context().clock())),
            "progress": bodies.present_progress(session, run, lines[-1] if lines else None),
            "curve": curve,
            "health": bodies.present_health(check_health(curve)),
            "measuring": is_being_measured(session, run),
        }


@blueprint.post("/runs/<run_id>/quote")
def post_quote(path: bodies.RunPath, body: bodies.QuoteBody) -> tuple[QuoteView, int]:
    """Return what the planned run costs at most on an offer."""
    actor = current_actor()
    with context().sessions.write() as session:
        quote = ordering.quote_run(
            session,
            actor,
            path.run_id,
            offer_id=body.offer_id,
            require_model_voucher=bool(body.use_model_voucher),
            now=context().clock(),
        )
        return present_quote(quote), 201


@blueprint.post("/runs/<run_id>/accept")
def post_accept(path: bodies.RunPath, body: bodies.AcceptBody) -> tuple[dict[str, Any], int]:
    """Accept the newest quote: money is held, training queued. Needs an Idempotency-Key."""
    actor = current_actor()
    key = request.headers.get("Idempotency-Key", "").strip()
    if not key:
        raise InvalidValueError(
            "The header Idempotency-Key is missing. Send one of your own, and the same on a retry.",
            "缺少 Idempotency-Key 请求头。请自行生成，重试时保持不变。",
            field="Idempotency-Key",
        )
    with context().sessions.write() as session:
        run, order = ordering.accept_run(
            session, actor, path.run_id, quote_id=body.quote_id, idempotency_key=key, now=context().clock()
        )
        return {"run": bodies.present_run(run), "order": present_order(order)}, 202


@blueprint.post("/runs/<run_id>/cancel")
def post_cancel(path: bodies.RunPath) -> tuple[dict[str, Any], int]:
    """Stop a run; the metered part is billed."""
    actor = current_actor()
    with context().sessions.write() as session:
        return bodies.present_run(stopping.cancel_run(session, actor, path.run_id, now=context().clock())), 202


@blueprint.post("/runs/<run_id>/pause")
def post_pause(path: bodies.RunPath) -> tuple[dict[str, Any], int]:
    """Stop a run after its current step and keep its checkpoint; the money stays held."""
    actor = current_actor()
    with context().sessions.write() as session:
        return bodies.present_run(stopping.pause_run(session, actor, path.run_id, now=context().clock())), 202


@blueprint.post("/runs/<run_id>/resume")
def post_resume(path: bodies.RunPath) -> tuple[dict[str, Any], int]:
    """Queue a paused run again; it goes on from its checkpoint."""
    actor = current_actor()
    with context().sessions.write() as session:
        return bodies.present_run(stopping.resume_run(session, actor, path.run_id, now=context().clock())), 202


@blueprint.post("/runs/<run_id>/publish")
def post_publish(path: bodies.RunPath, body: bodies.OverrideBody) -> tuple[dict[str, Any], int]:
    """Publish what the gate held back; the reason is audited."""
    actor = current_actor()
    with context().sessions.write() as session:
        run = override_gate(session, actor, path.run_id, reason=body.reason, now=context().clock())
        return bodies.present_run(run), 202


@blueprint.post("/runs/<run_id>/measure")
def post_measure(path: bodies.RunPath) -> tuple[dict[str, Any], int]:
    """Ask an engine again about a held run that none could be asked about."""
    actor = current_actor()
    with context().sessions.write() as session:
        run = measure_again(session, actor, path.run_id, now=context().clock())
        return bodies.present_run(run), 202


@blueprint.get("/runs/<run_id>/log")
def get_log(path: bodies.RunPath) -> dict[str, Any]:
    """Return the newest lines of the run's log; it holds numbers and fixed names, no text of the data."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
    return {"lines": bodies.present_log(read_log(locate_attempt(context().settings.home, run.id, run.attempt)))}


@blueprint.get("/runs/<run_id>/cases")
def get_cases(path: bodies.RunPath) -> dict[str, Any]:
    """Return the held-out cases before and after, and figures by label, to the run's organisation only."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
        if run.organisation_id != actor.organisation_id:
            raise NotFoundError.of("run", path.run_id)
    cases = read_cases(locate_run(context().settings.home, run.id))
    return {"cases": cases, "labels": report_labels([Case(**case) for case in cases])}


@blueprint.get("/runs/<run_id>/tryouts")
def get_tryouts(path: bodies.RunPath) -> dict[str, Any]:
    """Return the run's evaluated checkpoints with what is being tried out."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
        return {"checkpoints": bodies.present_checkpoints(session, run, context().settings.home)}


@blueprint.post("/runs/<run_id>/tryouts")
def post_tryout(path: bodies.RunPath, body: bodies.TryoutBody) -> tuple[dict[str, Any], int]:
    """Have one evaluated checkpoint answer to its name for an hour, for its owner alone."""
    actor = current_actor()
    home, now = context().settings.home, context().clock()
    with context().sessions.write() as session:
        chosen = request_tryout(session, actor, path.run_id, body.step, home=home, now=now)
        return {"step": chosen.step, "model": chosen.name}, 202


@blueprint.get("/runs/<run_id>/manifest")
def get_manifest(path: bodies.RunPath) -> dict[str, Any]:
    """Return everything that the run's result depended on."""
    actor = current_actor()
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
        return build_manifest(session, run, context().settings.home)


@blueprint.get("/runs/<run_id>/export")
def get_export(path: bodies.RunPath) -> Response:
    """Return adapter, manifest, card and SHA256SUMS as one zip."""
    actor = current_actor()
    home, store = context().settings.home, context().store
    with context().sessions.read() as session:
        name, content = build_bundle(session, actor, path.run_id, store=store, home=home)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return Response(content, content_type="application/zip", headers=headers)


@blueprint.get("/runs/<run_id>/rerun")
def get_rerun(path: bodies.RunPath) -> Comparison:
    """Return what the same run would differ in today: base, data, recipe, seed, code, versions, offer, list price."""
    actor = current_actor()
    with context().sessions.read() as session:
        return compare_rerun(session, actor, path.run_id, home=context().settings.home, now=context().clock())


@blueprint.post("/runs/<run_id>/rerun")
def post_rerun(path: bodies.RunPath, body: bodies.RerunBody) -> tuple[dict[str, Any], int]:
    """Enter the same run again, once its differences were seen; they come with the answer."""
    actor = current_actor()
    check_confirmed(path.run_id, confirm=body.confirm)
    home, now = context().settings.home, context().clock()
    with context().sessions.write() as session:
        found = compare_rerun(session, actor, path.run_id, home=home, now=now)
        run = rerun(session, actor, path.run_id, home=home, now=now)
        return bodies.present_run(run) | {"differences": found["differences"]}, 202


@blueprint.get("/runs/<run_id>/events")
def get_events(path: bodies.RunPath) -> Response:
    """Stream states and trainer lines; resumes after Last-Event-ID (header, or `?after=`) and closes after 60 s."""
    actor = current_actor()
    position = read_position(request.headers.get("Last-Event-ID", request.args.get("after", "")))
    with context().sessions.read() as session:
        run = service.find_run(session, actor, path.run_id)
    source = Source(context().sessions, context().settings.home, run.id, run.organisation_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream_run(source, position), content_type="text/event-stream", headers=headers)


@blueprint.post("/offers")
def post_offer(body: bodies.OfferBody) -> tuple[OfferRow, int]:
    """Publish an offer with its price (provider or operator)."""
    actor = current_actor()
    with context().sessions.write() as session:
        offer = publish_offer(session, actor, now=context().clock(), **body.model_dump(exclude={"replaces"}))
        if body.replaces:
            withdraw_offer(session, actor, body.replaces, now=context().clock())
        return present_offer(session, offer, find_provider(session, offer.provider_id)), 201
