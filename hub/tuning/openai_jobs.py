"""Runs as OpenAI fine-tuning jobs: the object of `client.fine_tuning.jobs`, and what it reads besides the run.

It leaves events and checkpoints to `hub.tuning.openai_events`. Source: openai-python `types/fine_tuning`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import Progress
from hub.catalogue.service import name_of
from hub.catalogue.tables import ModelVersion
from hub.datasets.tables import DatasetVersion
from hub.deployments.tables import Deployment, DeploymentState
from hub.orders.tables import Quote
from hub.tuning.bodies import present_health, present_place, present_progress
from hub.tuning.gate import find_refuted, is_refuted
from hub.tuning.health import check_health
from hub.tuning.openai_ids import show_file, show_job, show_result_file
from hub.tuning.progress import locate_attempt, read_curve, read_tail
from hub.tuning.queueing import find_place
from hub.tuning.states import DELIVERED, TERMINAL, RunState, openai_status
from hub.tuning.tables import Run

SERVE_WAIT = timedelta(minutes=15)
"""A finished job counts as running until its model answers; if no engine takes it for so long, it has succeeded."""
_FAILED = frozenset({RunState.FAILED, RunState.INVALID, RunState.EXPIRED})
_PARAMS = {
    "data_invalid": "training_file",
    "data_not_ready": "training_file",
    "too_few_examples": "training_file",
    "no_trainable_tokens": "training_file",
    "tool_role_not_rendered": "training_file",
    "data_changed": "training_file",
    "quote_above_limit": "metadata.guanmo_max_fen",
    "hyperparameter_out_of_range": "method.supervised.hyperparameters",
}


def present_job(session: Session, run: Run, *, home: Path, now: datetime) -> dict[str, Any]:
    """Return a run as `fine_tuning.job`; times in Unix seconds. The member `guanmo` is ours."""
    asked = run.asked or {}
    status = read_status(session, run, now)
    hyperparameters = _show_hyperparameters(run, asked.get("hyperparameters") or {})
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    is_over = status in ("succeeded", "failed", "cancelled")
    return {
        "id": show_job(run.id),
        "object": "fine_tuning.job",
        "created_at": _seconds(run.created_at),
        "finished_at": _seconds(run.finished_at) if is_over and run.finished_at else None,
        "estimated_finish": None if is_over else _estimate_finish(run, home, now),
        "error": _show_error(run),
        "fine_tuned_model": name_tuned(session, run) if status == "succeeded" and not is_refuted(run.gate) else None,
        "model": run.base_public_name,
        "organization_id": run.organisation_id,
        "status": status,
        "seed": run.seed,
        "training_file": show_file(data.dataset_id),
        "validation_file": _show_held_file(session, data),
        "result_files": [show_result_file(run.id)] if run.state in DELIVERED else [],
        "trained_tokens": run.trained_tokens if is_over else None,
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "metadata": asked.get("metadata"),
        "integrations": [],
        "user_provided_suffix": asked.get("suffix"),
        "guanmo": _show_own(session, run, home, now),
    }


def read_status(session: Session, run: Run, now: datetime) -> str:
    """Return OpenAI's word; a delivered run that shall be served is `running` until its name answers."""
    word = openai_status(run.state)
    if word == "succeeded" and run.deploy_when_done and run.version_id is not None:
        return word if is_served(session, run, now) else "running"
    return word


def is_served(session: Session, run: Run, now: datetime) -> bool:
    """Return whether the run's version was asked on its engine, cannot be, or was waited for long enough."""
    if "served" in (run.gate or {}) or (run.finished_at is not None and now - run.finished_at > SERVE_WAIT):
        return True
    query = select(Deployment.id).where(
        Deployment.version_id == run.version_id,
        Deployment.state.in_((DeploymentState.FAILED, DeploymentState.STOPPED)),
    )
    return session.scalar(query.limit(1)) is not None


def name_tuned(session: Session, run: Run) -> str | None:
    """Return the public name `org/name@N` of what the run made, under which the gateway serves it."""
    if run.version_id is None:
        return None
    return name_of(session, session.get_one(ModelVersion, run.version_id))


def _show_held_file(session: Session, data: DatasetVersion) -> str | None:
    if data.held_version_id is None:
        return None
    return show_file(session.get_one(DatasetVersion, data.held_version_id).dataset_id)


def _show_error(run: Run) -> dict[str, Any] | None:
    if is_refuted(run.gate):
        served = find_refuted(run.gate)
        text = "the engine does not serve what was trained; the model is quarantined, ask your operator"
        return {"code": served["code"], "message": text, "param": None}
    if run.state not in _FAILED:
        return None
    code = run.reason_code or "internal"
    message = run.message or f"the job ended: {code.replace('_', ' ')}"
    return {"code": code, "message": message, "param": _PARAMS.get(code)}


def _show_hyperparameters(run: Run, asked: dict[str, Any]) -> dict[str, Any]:
    """`auto` becomes the number that was chosen as soon as the plan knows it."""
    shown = {name: asked.get(name, "auto") for name in ("n_epochs", "batch_size", "learning_rate_multiplier")}
    recipe = (run.plan or {}).get("recipe", {})
    if "epochs" in recipe:
        shown["n_epochs"] = int(recipe["epochs"]["value"])
    if shown["batch_size"] == "auto" and "batch_tokens" in recipe:
        per_row = run.plan["tokens_per_epoch"] / max(1, run.plan["rows"]["train"])  # type: ignore[index]
        shown["batch_size"] = max(1, round(recipe["batch_tokens"]["value"] / per_row))
    if shown["learning_rate_multiplier"] == "auto" and recipe:
        shown["learning_rate_multiplier"] = 1.0
    return shown


def _show_own(session: Session, run: Run, home: Path, now: datetime) -> dict[str, Any]:
    lines = [] if run.state in TERMINAL else read_tail(locate_attempt(home, run.id, run.attempt))
    quote = session.get(Quote, run.quote_id) if run.quote_id else None
    return {
        "run_id": run.id,
        "state": str(run.state),
        "reason_code": run.reason_code,
        "fault": None if run.fault is None else str(run.fault),
        "paused": run.state is RunState.PAUSED,
        "queue": present_place(find_place(session, run, home, now)),
        "progress": _show_progress(session, run, lines, home),
        "offer_id": run.offer_id,
        "list_fen": quote.list_fen if quote else None,
        "voucher_fen": quote.voucher_fen if quote else None,
        "self_paid_fen": quote.self_paid_fen if quote else None,
        "gate": run.gate,
        "version_id": run.version_id,
    }


def _show_progress(session: Session, run: Run, lines: Sequence[Progress], home: Path) -> dict[str, Any] | None:
    """The newest figures of a run that works: step, tokens, losses, health, speed, time left, cost so far."""
    shown = present_progress(session, run, lines[-1] if lines else None)
    if shown is None:
        return None
    figures: dict[str, Any] = {}
    for line in lines:
        figures |= line.metrics
    names = ("loss", "valid_loss", "valid_token_accuracy", "tokens_per_s", "eta_s")
    plan = run.plan or {}
    curve = read_curve(home, run.id)
    return {
        "step": shown["step"],
        "steps": plan.get("steps"),
        "tokens": shown["tokens"],
        "planned_tokens": plan.get("tokens"),
        "device_ms": shown["device_ms"],
        "cost_fen": shown["cost_fen"],
        "health": present_health(check_health(curve)),
        "band": curve[-1].get("band") if curve else None,
    } | {name: figures.get(name) for name in names}


def _estimate_finish(run: Run, home: Path, now: datetime) -> int | None:
    if run.state in TERMINAL or run.attempt == 0:
        return None
    etas = [line.metrics["eta_s"] for line in read_tail(locate_attempt(home, run.id, run.attempt)) if _has_eta(line)]
    return _seconds(now) + round(float(str(etas[-1]))) if etas else None


def _has_eta(line: Any) -> bool:
    return "eta_s" in line.metrics


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
