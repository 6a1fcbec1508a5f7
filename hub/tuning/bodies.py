"""Bodies, queries and JSON shapes of the tuning API. It leaves what they cause to the services."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from finetune.spec import Progress
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.compute.tables import Device
from hub.orders.service import find_order
from hub.orders.tables import Quote
from hub.tuning.health import Check
from hub.tuning.log_lines import LogLine
from hub.tuning.queueing import Place
from hub.tuning.service import list_attempts
from hub.tuning.speeds import Estimate, estimate_time, read_speeds
from hub.tuning.states import openai_status
from hub.tuning.tables import Run
from hub.tuning.tryouts import list_tryouts
from hub.web import Body, Query, context


class RunBody(Body):
    """A wish: base by public name or version id, data set by its or a version's id, new model's name, recipe values."""

    base: str
    dataset_id: str
    model_name: str
    recipe: dict[str, int | float | str] = Field(default_factory=dict)
    seed: int = 42
    deploy_when_done: bool = False
    cost_centre: str | None = Field(None, max_length=100)


class RunPath(Query):
    """One run."""

    run_id: str


class QuoteBody(Body):
    """An offer; `use_model_voucher` true insists on the model voucher, and is refused for an unfiled base."""

    offer_id: str
    use_model_voucher: bool | None = None


class AcceptBody(Body):
    """The run's newest quote."""

    quote_id: str


class OverrideBody(Body):
    """Why the gate does not matter here."""

    reason: str


class RerunBody(Body):
    """Says that the differences which the same address tells were seen."""

    confirm: bool


class TryoutBody(Body):
    """The step of an evaluated checkpoint."""

    step: int = Field(ge=1)


class OfferBody(Body):
    """Devices at `amount_fen` per `per_device_ms` milliseconds (default: per hour).

    `replaces`: an own offer that the new one takes the place of; it is withdrawn with it or not at all.
    """

    provider_id: str
    title_zh: str = Field(min_length=1, max_length=80)
    title_en: str = Field(min_length=1, max_length=80)
    accelerator: str = Field(min_length=1, max_length=80)
    region_zh: str = Field(min_length=1, max_length=40)
    region_en: str = Field(min_length=1, max_length=40)
    via_city_platform: bool
    amount_fen: int
    per_device_ms: int = 3_600_000
    tokens_per_s: int
    count: int = 1
    memory_gib: int = 8
    device: Device = Field(Device.CPU, strict=False)
    cpu_threads: int = 1
    available: int = 1
    replaces: str | None = None


def present_run(run: Run) -> dict[str, Any]:
    """Return a run as JSON values, without what changes by the second."""
    moments = {
        name: None if value is None else value.isoformat()
        for name in (
            "created_at",
            "planned_at",
            "accepted_at",
            "started_at",
            "first_step_at",
            "finished_at",
            "cancel_requested_at",
            "pause_requested_at",
            "quote_valid_until",
        )
        for value in [getattr(run, name)]
    }
    plain = (
        "id",
        "base_version_id",
        "base_public_name",
        "dataset_version_id",
        "model_name",
        "recipe",
        "seed",
        "state",
        "reason_code",
        "fault",
        "message",
        "plan",
        "plan_digest",
        "quote_id",
        "quoted_device_ms",
        "offer_id",
        "order_id",
        "attempt",
        "device_ms",
        "trained_tokens",
        "metrics",
        "gate",
        "artifact_digest",
        "version_id",
        "deploy_when_done",
        "mlflow_run_id",
        "rerun_of",
    )
    wait_ms = None
    if run.accepted_at is not None and run.first_step_at is not None:
        wait_ms = round((run.first_step_at - run.accepted_at).total_seconds() * 1000)
    return (
        {name: getattr(run, name) for name in plain}
        | {"openai_status": openai_status(run.state), "accept_to_first_step_ms": wait_ms}
        | moments
    )


def present_attempts(session: Session, run: Run) -> list[dict[str, Any]]:
    """Return the attempts of a run as JSON values."""
    return [
        {
            "attempt": row.attempt,
            "state": row.state,
            "reason_code": row.reason_code,
            "exit_code": row.exit_code,
            "elapsed_device_ms": row.elapsed_device_ms,
            "created_at": row.created_at.isoformat(),
            "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
        }
        for row in list_attempts(session, run)
    ]


def present_place(place: Place | None) -> dict[str, int] | None:
    """Return a place in the queue as JSON values."""
    return None if place is None else {"position": place.position, "ahead": place.ahead, "eta_s": place.eta_s}


def present_estimates(session: Session, run: Run) -> list[dict[str, Any]]:
    """Return the device time that each open offer would be quoted with, and by which speed."""
    if run.plan is None:
        return []
    now = context().clock()
    speeds = read_speeds(session, as_of=now, base_version_id=run.base_version_id)
    return [
        {"offer_id": offer.id} | _present_estimate(estimate_time(run.plan, offer, speeds.get(offer.id)))
        for offer, _ in list_offers(session, OfferFilter(), now=now)
    ]


def _present_estimate(found: Estimate) -> dict[str, Any]:
    """`speed` in trained tokens a second; `runs` and `newest_at` where completed runs taught it."""
    measured = found.measured
    return {
        "device_ms": found.device_ms,
        "speed": {
            "basis": found.basis,
            "tokens_per_s": round(found.tokens_per_s, 1),
            "runs": 0 if measured is None else measured.runs,
            "newest_at": None if measured is None else measured.newest_at.isoformat(),
        },
    }


def present_health(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the checks beside a curve as JSON values; an open end of a range is null."""
    return [
        {"code": check.code, "value": check.value, "low": check.low, "high": check.high, "ok": check.ok}
        for check in checks
    ]


def present_log(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    """Return lines of a run's log as JSON values."""
    return [{"at": line.at.isoformat(), "attempt": line.attempt, "text": line.text} for line in lines]


def present_progress(session: Session, run: Run, line: Progress | None) -> dict[str, Any] | None:
    """Return the trainer's newest line with the cost so far in fen, at the quote's prices and never above them."""
    if line is None:
        return None
    return {
        "type": line.type,
        "attempt": line.attempt,
        "step": line.step,
        "tokens": line.tokens,
        "device_ms": line.device_ms,
        "metrics": line.metrics,
        "cost_fen": _cost_so_far(session, run, line),
    }


def _cost_so_far(session: Session, run: Run, line: Progress) -> int | None:
    if run.order_id is None:
        return None
    order = find_order(session, run.order_id)
    quote = session.get_one(Quote, order.quote_id)
    used = {"device_ms": line.device_ms, "trained_tokens": line.tokens}
    return sum(
        min(used[item.meter], item.quantity) * item.amount_fen // item.per_units
        for item in quote.lines
        if item.meter in used
    )


def present_checkpoints(session: Session, run: Run, home: Path) -> list[dict[str, Any]]:
    """Return the evaluated checkpoints of a run as JSON values; `state` and `until_at` of those that are tried out."""
    return [
        {
            "step": one.checkpoint.step,
            "model": one.checkpoint.name,
            "valid_loss": one.checkpoint.valid_loss,
            "valid_token_accuracy": one.checkpoint.valid_token_accuracy,
            "train_loss": one.checkpoint.train_loss,
            "state": one.state,
            "until_at": None if one.until_at is None else one.until_at.isoformat(),
        }
        for one in list_tryouts(session, run, home)
    ]
