"""The check job: runs `python -m finetune` kind=check on an upload and applies its report to the version.

It leaves what counts as an error to the trainer and what a report means for the state to `hub.datasets.rules`.
"""

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import Data, Fault, Kind, Result, RunSpec, State
from hub.datasets import rules
from hub.datasets.files import locate_folder, locate_source
from hub.datasets.service import CHECK_KIND
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, fail_job, finish_job, has_open_job, require_lock
from hub.jobs.tables import JobState
from hub.jobs.trainer import await_trainer, clear_trainer, ensure_trainer
from hub.jobs.work import DONE, Verdict, Work

_POLL_S = 0.2
_RETRY_S = 2.0
MOST_CHECK_S = 7200.0
"""A gigabyte of rows takes minutes to check on one core; this leaves room for a slow one that others share."""
REPORT_NAME = "report.json"


def check_dataset(work: Work, claim: Claim) -> Verdict:
    """One pass of a check: start or adopt the process, look, apply its report once it ended."""
    with work.sessions.read() as session:
        version = session.get(DatasetVersion, claim.subject)
        held = session.get(DatasetVersion, version.held_version_id) if version and version.held_version_id else None
    if version is None or version.state is not DatasetState.CHECKING:
        return _close(work, claim)
    attempt = claim.failures + 1
    name = f"check-{version.id}-a{attempt}"
    folder = f"checked-{version.id}-a{attempt}"
    out = locate_folder(work.settings.home, version.organisation_id, version.source_digest) / folder
    make_spec = partial(_build_spec, work.settings.home, version, held, attempt)
    ensure_trainer(work, claim, name=name, make_spec=make_spec, out=out, threads=1)
    found = await_trainer(work, name, out, most_s=MOST_CHECK_S, poll_s=_POLL_S)
    if isinstance(found, Verdict):
        return found
    report = _read_report(out) or _report_refusal(found.result)
    if found.result is None or report is None:
        reason, text = found.explain_loss("internal")
        _retry(work, claim, reason=reason, text=text)
    else:
        _apply_report(work, claim, folder=folder, result=found.result, report=report)
    clear_trainer(work, name)
    return DONE


def fail_orphaned_checks(session: Session, *, now: datetime) -> int:
    """Fail versions whose check was given up, so that nobody waits for ever; returns how many."""
    found = session.scalars(
        select(DatasetVersion)
        .where(DatasetVersion.state == DatasetState.CHECKING, ~has_open_job(CHECK_KIND, DatasetVersion.id))
        .order_by(DatasetVersion.id)
    ).all()
    for version in found:
        version.state, version.reason_code, version.checked_at = DatasetState.FAILED, "internal", now
        _record(session, version, now)
    return len(found)


def _build_spec(home: Path, version: DatasetVersion, held: DatasetVersion | None, attempt: int) -> RunSpec:
    source, valid = (
        None if one is None else str(locate_source(home, one.organisation_id, one.source_digest, one.format))
        for one in (version, held)
    )
    return RunSpec(
        kind=Kind.CHECK,
        run_id=version.id,
        attempt=attempt,
        fence=attempt,
        data=Data(
            source=source,
            valid=valid,
            format=version.format,
            mapping=version.mapping,
            fixes=version.fixes,
            digests={"source": version.source_digest},
        ),
    )


def _read_report(out: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((out / REPORT_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return report


def _report_refusal(result: Result | None) -> dict[str, Any] | None:
    """A file that the trainer would not even read (wrong mapping, changed bytes) is the report's only issue."""
    if result is None or result.fault is not Fault.USER:
        return None
    issue: dict[str, Any] = {
        "code": result.reason_code,
        "severity": "E",
        "file": "train",
        "row": None,
        "column": None,
        "count": 1,
        "listed": 0,
        "sample_rows": [],
        "fix": None,
        "message_en": result.message,
        "message_zh": result.message,
    }
    return {"summary": {"ok": False, "errors": 1, "warnings": 0, "fixed": 0}, "issues": [issue]}


def _apply_report(work: Work, claim: Claim, *, folder: str, result: Result, report: dict[str, Any]) -> None:
    now = work.clock()
    state = rules.judge_report(report)
    if result.state is not State.SUCCEEDED:
        # A mapping or digest that the trainer refuses blocks too, even where the rows themselves are sound.
        state = DatasetState.BLOCKED
    with work.sessions.write() as session:
        require_lock(session, claim)
        version = session.get_one(DatasetVersion, claim.subject, with_for_update=True)
        if version.state is DatasetState.CHECKING:
            version.state, version.report, version.checked_at = state, report, now
            version.reason_code = result.reason_code
            version.checked_folder = folder
            if state is not DatasetState.BLOCKED:
                version.train_digest = result.digests["train.jsonl"]
                version.valid_digest = result.digests["valid.jsonl"]
                version.train_rows = report["summary"]["train_rows"]
                version.valid_rows = report["summary"]["valid_rows"]
            _record(session, version, now)
        finish_job(session, claim, now=now)


def _retry(work: Work, claim: Claim, *, reason: str, text: str) -> None:
    """Platform trouble: try again, and say so on the version when the tries are used up."""
    now = work.clock()
    with work.sessions.write() as session:
        state = fail_job(
            session, claim, error=f"check ended without a report: {text or reason}", now=now, retry_after_s=_RETRY_S
        )
        if state is JobState.FAILED:
            version = session.get_one(DatasetVersion, claim.subject, with_for_update=True)
            if version.state is DatasetState.CHECKING:
                version.state, version.reason_code, version.checked_at = DatasetState.FAILED, reason, now
                _record(session, version, now)


def _close(work: Work, claim: Claim) -> Verdict:
    clear_trainer(work, f"check-{claim.subject}-a{claim.failures + 1}")
    with work.sessions.write() as session:
        finish_job(session, claim, now=work.clock())
    return DONE


def _record(session: Session, version: DatasetVersion, now: datetime) -> None:
    record_event(
        session,
        "dataset.checked",
        version.dataset_id,
        organisation_id=version.organisation_id,
        actor_id=SYSTEM,
        now=now,
        version_id=version.id,
        state=str(version.state),
        reason_code=version.reason_code,
    )
