"""Events, checkpoints and the metrics file of a fine-tuning job, from the outbox and the trainer's lines.

It leaves the job object to `hub.tuning.openai_jobs`.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import Event as LineKind
from finetune.spec import Progress
from hub.clock import from_us
from hub.errors import NotFoundError
from hub.events.tables import Event
from hub.tuning.openai_ids import CHECKPOINT, EVENT, show_job
from hub.tuning.openai_jobs import name_tuned
from hub.tuning.progress import read_after
from hub.tuning.rules import MAX_DURATION, NAN_LOSS, STALLED
from hub.tuning.tables import Run
from hub.tuning.tryouts import list_evaluated

MAX_EVENTS = 10_000
_TOLD_LINES = (LineKind.STEP, LineKind.VALIDATION, LineKind.EVALUATED, LineKind.RESUMED)
_OPENAI_NAMES = {
    "loss": "train_loss",
    "valid_loss": "valid_loss",
    "valid_token_accuracy": "valid_mean_token_accuracy",
}
_TEXTS = {
    "run.created": "Created fine-tuning job",
    "run.planned": "Files validated; the work is planned",
    "run.quoted": "Quoted",
    "run.queued": "Quote accepted, money held; the job is queued",
    "run.provisioning": "Fine-tuning job is taking its devices",
    "run.preparing": "The trainer is starting",
    "run.running": "Fine-tuning job started",
    "run.evaluating": "Scoring base and adapter on the held-out rows",
    "run.pause_requested": "Pause requested",
    "run.paused": "Fine-tuning job paused; its checkpoint is kept",
    "run.cancel_requested": "Cancellation requested",
    "run.succeeded": "The job has successfully completed",
    "run.early_stopped": "The job has successfully completed: it stopped early, nothing more was gained",
    "run.held": "The job is complete, but the publish gate holds its model back",
    "run.cancelled": "The job was cancelled",
    "run.recovering": "The trainer was interrupted; it goes on from its last checkpoint",
    "run.proven": "Proven on the serving engine: what is served is what was trained",
    "run.proof_missing": "The serving engine could not be asked for a proof",
    "run.proof_failed": "The serving engine does not serve what was trained; the model is quarantined",
    "run.gate_overridden": "The publish gate was overridden",
    "run.measure_requested": "The serving engine is asked about the model once more",
    "run.measured": "The model was measured on the serving engine",
}
_RECOVERIES = {
    NAN_LOSS: "The loss was no number; the job goes on from its last checkpoint at half the learning rate",
    STALLED: "The trainer stood still and was ended; the job goes on from its last checkpoint",
    MAX_DURATION: "The trainer took far longer than quoted and was ended; the job goes on from its last checkpoint",
}
_LEVELS = {
    "run.failed": "error",
    "run.invalid": "error",
    "run.expired": "error",
    "run.proof_failed": "error",
    "run.recovering": "warn",
    "run.proof_missing": "warn",
}


@dataclass(frozen=True)
class _Told:
    """One event with its place in time; `order` tells events of one moment apart."""

    at: datetime
    order: int
    id: str
    level: str
    message: str
    type: str
    data: Any


def list_events(session: Session, run: Run, home: Path) -> list[dict[str, Any]]:
    """Return the newest 10,000 events, newest first, as `fine_tuning.job.event`."""
    query = select(Event).where(Event.organisation_id == run.organisation_id, Event.subject == run.id)
    told = [_tell_event(event, run) for event in session.scalars(query.order_by(Event.seq))]
    lines = [line for line in read_after(home, run.id, attempt=0, seq=0) if line.type in _TOLD_LINES]
    told += [_tell_line(line, run) for line in lines[-MAX_EVENTS:]]
    told.sort(key=lambda item: (item.at, item.order), reverse=True)
    return [
        {
            "id": item.id,
            "object": "fine_tuning.job.event",
            "created_at": int(item.at.timestamp()),
            "level": item.level,
            "message": item.message,
            "type": item.type,
            "data": item.data,
        }
        for item in told[:MAX_EVENTS]
    ]


def list_checkpoints(session: Session, run: Run, home: Path) -> list[dict[str, Any]]:
    """Return every evaluated checkpoint, newest first.

    The one that was kept answers to the model's own name, the others to theirs while they are tried out: the newest two
    after the job's end, any by POST /api/v1/runs/{id}/tryouts.
    """
    name = name_tuned(session, run)
    train = (run.metrics or {}).get("train", {})
    known = list_evaluated(run, home)
    best = train.get("best_step") or (known[-1].step if known else None)
    shown = [
        _show_checkpoint(
            run,
            step=one.step,
            at=one.at,
            name=name if name is not None and one.step == best else one.name,
            losses=(one.train_loss, one.valid_loss),
            valid_accuracy=one.valid_token_accuracy,
        )
        for one in reversed(known)
    ]
    if name is not None and run.finished_at is not None and best not in [one.step for one in known]:
        step = int(best or (run.plan or {}).get("steps", 0))
        losses = (_find_loss(run, home, step), train.get("best_valid_loss"))
        shown.insert(0, _show_checkpoint(run, step=step, at=run.finished_at, name=name, losses=losses))
    return shown


def _show_checkpoint(
    run: Run,
    *,
    step: int,
    at: datetime,
    name: str,
    losses: tuple[float | None, float | None],
    valid_accuracy: float | None = None,
) -> dict[str, Any]:
    """Every look is at all held-out rows, so `valid` is `full_valid`; steps count no hits, which would slow them."""
    return {
        "id": f"{CHECKPOINT}{run.id.partition('_')[2]}-{step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(at.timestamp()),
        "fine_tuned_model_checkpoint": name,
        "fine_tuning_job_id": show_job(run.id),
        "step_number": step,
        "metrics": {
            "step": step,
            "train_loss": losses[0],
            "train_mean_token_accuracy": None,
            "valid_loss": losses[1],
            "valid_mean_token_accuracy": valid_accuracy,
            "full_valid_loss": losses[1],
            "full_valid_mean_token_accuracy": valid_accuracy,
        },
    }


def _find_loss(run: Run, home: Path, step: int) -> Any:
    lines = [line for line in read_after(home, run.id, attempt=0, seq=0) if line.type is LineKind.STEP]
    fitting = [line for line in lines if line.step <= step] or lines
    return fitting[-1].metrics.get("loss") if fitting else None


def write_metrics(run: Run, home: Path) -> bytes:
    """Return the step metrics as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = {**_OPENAI_NAMES, "learning_rate": "learning_rate"}
    writer.writerow(("step", *names.values(), "tokens"))
    for line in read_after(home, run.id, attempt=0, seq=0):
        if line.type in (LineKind.STEP, LineKind.VALIDATION):
            writer.writerow((line.step, *(line.metrics.get(name) for name in names), line.tokens))
    return stream.getvalue().encode()


def cut_page(rows: Sequence[dict[str, Any]], *, after: str | None, limit: int) -> dict[str, Any]:
    """Return the page behind the object `after` in OpenAI's list shape. Raises: NotFoundError."""
    start = 0
    if after is not None:
        found = [index for index, row in enumerate(rows) if row["id"] == after]
        if not found:
            raise NotFoundError(
                f"after is '{after[:80]}', which is not in this list; send an id of an earlier page.",
                f"after“{after[:80]}”不在列表中，请使用之前返回的 id。",
                field="after",
            )
        start = found[0] + 1
    page = list(rows[start : start + limit])
    return {
        "object": "list",
        "data": page,
        "has_more": start + limit < len(rows),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _tell_event(event: Event, run: Run) -> _Told:
    reason = event.payload.get("reason_code")
    text = _TEXTS.get(event.topic, event.topic.replace("run.", "Job is now "))
    if event.topic in ("run.failed", "run.invalid") and run.message:
        text = f"The job failed: {run.message}"
    if event.topic == "run.recovering":
        text = _RECOVERIES.get(str(reason), text)
    data = {key: value for key, value in event.payload.items() if value is not None}
    suffix = f" ({reason})" if reason not in (None, "done") else ""
    level = _LEVELS.get(event.topic, "info")
    name = EVENT + event.id.partition("_")[2]
    return _Told(event.occurred_at, event.seq, name, level, text + suffix, "message", data)


def _tell_line(line: Progress, run: Run) -> _Told:
    data: dict[str, Any] = {"step": line.step, "total_tokens": line.tokens}
    data |= {_OPENAI_NAMES.get(key, key): value for key, value in line.metrics.items()}
    shown = ", ".join(
        f"{label}={data[label]:.4f}" for label in _OPENAI_NAMES.values() if isinstance(data.get(label), float)
    )
    steps = (run.plan or {}).get("steps")
    text = f"Step {line.step}{f'/{steps}' if steps else ''}: {shown or str(line.type)}"
    kind = "metrics" if shown else "message"
    identity = f"{EVENT}{run.id.partition('_')[2]}-{line.attempt}-{line.seq}"
    return _Told(from_us(line.at), 1 + line.seq, identity, "info", text, kind, data)
