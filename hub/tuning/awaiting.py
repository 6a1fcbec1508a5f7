"""A run whose data are still under check waits for the report, takes its warnings as read, or ends with its errors.

Only runs with standing terms come here before their data are ready. It leaves the check to `hub.datasets`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Fault
from hub.actor import Actor
from hub.datasets.service import acknowledge_version
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, later
from hub.organisations.people import find_user
from hub.tuning.moves import move_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run

_WAIT_S = 0.5
_TOLD_ISSUES = 5


def await_data(work: Work, claim: Claim) -> Verdict:
    """One pass over a run whose data are not ready: hand the job back, or decide by the report."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        data = session.get_one(DatasetVersion, run.dataset_version_id)
        if data.state is DatasetState.WARNED and run.terms is not None:
            _acknowledge(session, run, data, now)
        if data.state in (DatasetState.CHECKING, DatasetState.READY):
            return later(_WAIT_S if data.state is DatasetState.CHECKING else 0.0)
        fault = Fault.PLATFORM if data.state is DatasetState.FAILED else Fault.USER
        move_run(
            session,
            run,
            RunState.INVALID,
            now=now,
            reason_code="data_invalid" if data.state is DatasetState.BLOCKED else "data_not_ready",
            fault=fault,
            message=explain_data(data.state, data.report),
        )
        finish_job(session, claim, now=now)
    return DONE


def explain_data(state: DatasetState, report: Mapping[str, Any] | None) -> str:
    """Return why data cannot be trained on: codes and row numbers of the errors, never a row's text."""
    errors = [issue for issue in (report or {}).get("issues", []) if issue.get("severity") == "E"]
    if not errors:
        return f"the data set is '{state}'; upload the file again."
    told = [f"{issue['code']}{_tell_rows(issue)}" for issue in errors[:_TOLD_ISSUES]]
    more = f" and {len(errors) - _TOLD_ISSUES} more" if len(errors) > _TOLD_ISSUES else ""
    return f"the file has {len(errors)} kind(s) of errors: {', '.join(told)}{more}; correct them and upload it again."


def _tell_rows(issue: Mapping[str, Any]) -> str:
    rows = issue.get("sample_rows") or ([issue["row"]] if issue.get("row") is not None else [])
    return f" (rows {', '.join(str(row) for row in rows[:5])})" if rows else ""


def _acknowledge(session: Session, run: Run, data: DatasetVersion, now: datetime) -> None:
    user = find_user(session, run.created_by)
    actor = Actor(user.id, run.organisation_id, user.role, user.language)
    acknowledge_version(session, actor, data, now=now)
