"""Moves a run from state to state: one conditional update with its event, in the caller's transaction.

It leaves why to the services and handlers.
"""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from finetune.spec import Fault
from hub.errors import ConflictError
from hub.events.service import SYSTEM, record_event
from hub.tuning.states import TERMINAL, RunState, may_follow
from hub.tuning.tables import Run


class RunStateError(ConflictError):
    """The run's state does not allow this step, or it changed meanwhile."""

    code = "run_state"


def move_run(
    session: Session,
    run: Run,
    target: RunState,
    *,
    now: datetime,
    actor_id: str = SYSTEM,
    reason_code: str | None = None,
    fault: Fault | None = None,
    **columns: Any,
) -> None:
    """Put a run into `target`, set further columns and record the event `run.<target>`.

    Raises:
        RunStateError: not allowed from here, or somebody else moved it first.
    """
    session.flush()
    before = run.state
    if not may_follow(before, target):
        raise RunStateError(
            f"Run {run.id} is '{before}' and cannot become '{target}'. Look at it again before the next step.",
            f"任务 {run.id} 状态为“{before}”，不能变为“{target}”。请刷新后再操作。",
            state=str(before),
        )
    values: dict[str, Any] = {"state": target, "state_version": run.state_version + 1, **columns}
    if reason_code is not None:
        values["reason_code"] = reason_code
    if fault is not None:
        values["fault"] = fault
    if target in TERMINAL:
        values["finished_at"] = now
    statement = update(Run).where(Run.id == run.id, Run.state == before, Run.state_version == run.state_version)
    done = session.execute(statement.values(**values).execution_options(synchronize_session=False))
    if cast("CursorResult[Any]", done).rowcount != 1:
        raise RunStateError(
            f"Run {run.id} changed while this step was prepared. Look at it again.",
            f"任务 {run.id} 已发生变化，请刷新后重试。",
        )
    session.refresh(run)
    record_event(
        session,
        f"run.{target}",
        run.id,
        organisation_id=run.organisation_id,
        actor_id=actor_id,
        now=now,
        before=str(before),
        attempt=run.attempt,
        reason_code=reason_code,
        fault=None if fault is None else str(fault),
    )
