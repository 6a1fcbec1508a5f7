"""The preview job: runs `python -m finetune` kind=check on checked rows with a base, and notes its figures.

It leaves tokens in the owner's folder; the row in the database has counts only.
"""

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import Base, Data, Fault, Kind, RunSpec, State
from hub.datasets.files import locate_folder
from hub.datasets.previews import PREVIEW_KIND, PREVIEW_NAME
from hub.datasets.service import locate_checked
from hub.datasets.tables import DatasetPreview, DatasetState, DatasetVersion, PreviewState
from hub.jobs.service import Claim, fail_job, finish_job, has_open_job, require_lock
from hub.jobs.tables import JobState
from hub.jobs.trainer import Sighting, await_trainer, clear_trainer, ensure_trainer
from hub.jobs.work import DONE, Verdict, Work

_POLL_S = 0.2
_RETRY_S = 2.0
MOST_PREVIEW_S = 900.0
"""Somebody waits for it on a page; most of its time goes into tokens, a few seconds for each ten thousand rows."""


def preview_dataset(work: Work, claim: Claim) -> Verdict:
    """One pass of a preview: start or adopt the process, look, note its figures once it ended."""
    name = f"preview-{claim.subject}-a{claim.failures + 1}"
    with work.sessions.read() as session:
        preview = session.get(DatasetPreview, claim.subject)
        version = None if preview is None else session.get_one(DatasetVersion, preview.version_id)
    if preview is None or version is None or version.state is DatasetState.DELETED:
        clear_trainer(work, name)
        with work.sessions.write() as session:
            finish_job(session, claim, now=work.clock())
        return DONE
    folder = f"tokens-{version.id}-{preview.id}-a{claim.failures + 1}"
    out = locate_folder(work.settings.home, version.organisation_id, version.source_digest) / folder
    make_spec = partial(_build_spec, work, preview, version)
    ensure_trainer(work, claim, name=name, make_spec=make_spec, out=out, threads=1)
    found = await_trainer(work, name, out, most_s=MOST_PREVIEW_S, poll_s=_POLL_S)
    if isinstance(found, Verdict):
        return found
    _apply(work, claim, found, out)
    clear_trainer(work, name)
    return DONE


def locate_preview(home: Path, version: DatasetVersion, preview: DatasetPreview) -> Path:
    """Return the file with the tokens of a preview that is ready."""
    folder = locate_folder(home, version.organisation_id, version.source_digest)
    return folder / (preview.folder or "unmade") / PREVIEW_NAME


def fail_orphaned_previews(session: Session, *, now: datetime) -> int:
    """Fail previews whose job was given up; returns how many."""
    found = session.scalars(
        select(DatasetPreview)
        .where(DatasetPreview.state == PreviewState.WORKING, ~has_open_job(PREVIEW_KIND, DatasetPreview.id))
        .order_by(DatasetPreview.id)
    ).all()
    for preview in found:
        preview.state, preview.reason_code, preview.finished_at = PreviewState.FAILED, "internal", now
    return len(found)


def _build_spec(work: Work, preview: DatasetPreview, version: DatasetVersion) -> RunSpec:
    checked = locate_checked(work.settings.home, version)
    return RunSpec(
        kind=Kind.CHECK,
        run_id=preview.id,
        base=Base(
            str(work.store.path(preview.artifact_digest)),
            preview.weights_digest,
            preview.tokenizer_digest,
            preview.template_digest,
        ),
        data=Data(
            train=str(checked / "train.jsonl"),
            valid=str(checked / "valid.jsonl"),
            digests={"train": version.train_digest or "", "valid": version.valid_digest or ""},
        ),
    )


def _apply(work: Work, claim: Claim, sighting: Sighting, out: Path) -> None:
    now, result = work.clock(), sighting.result
    figures = _read_figures(out) if result is not None and result.state is State.SUCCEEDED else None
    with work.sessions.write() as session:
        require_lock(session, claim)
        preview = session.get(DatasetPreview, claim.subject, with_for_update=True)
        if preview is None:  # deleted meanwhile
            finish_job(session, claim, now=now)
            return
        reason, text = sighting.explain_loss("internal")
        if figures is not None:
            preview.state, preview.folder, preview.figures = PreviewState.READY, out.name, figures
            preview.finished_at = now
            finish_job(session, claim, now=now)
        elif result is not None and (result.fault is Fault.USER or reason in _BASE_REASONS):
            _fail(preview, reason, result.message, now)
            finish_job(session, claim, now=now)
        elif (
            fail_job(session, claim, error=f"preview ended: {text or reason}", now=now, retry_after_s=_RETRY_S)
            is JobState.FAILED
        ):
            _fail(preview, reason, text, now)


_BASE_REASONS = frozenset(
    {"template_missing", "template_not_stable", "template_prompt_differs", "stop_token_not_trained", "row_not_chat"}
)
"""What another attempt would find again."""


def _fail(preview: DatasetPreview, reason: str, message: str, now: datetime) -> None:
    preview.state, preview.reason_code, preview.message = PreviewState.FAILED, reason, message
    preview.finished_at = now


def _read_figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / PREVIEW_NAME).read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name != "samples"}
