"""Runs as people see them: create, find, list, cancel. The only writer of runs beside the handlers of this room.

It leaves quote and acceptance to `hub.tuning.ordering`, and executing to planning and training.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.rules import check_model_name
from hub.catalogue.service import find_version, name_of, root_base
from hub.catalogue.tables import TUNABLE_KINDS, ModelVersion, VersionState
from hub.datasets.service import find_usable_version
from hub.errors import ConflictError, NotFoundError
from hub.events.service import record_event
from hub.filings.service import StandingState, explain_standing, standing_of
from hub.ids import new_id
from hub.jobs.service import cancel_waiting_job, enqueue_job
from hub.organisations.service import require_verified
from hub.tuning.moves import move_run
from hub.tuning.states import TERMINAL, UNORDERED, RunState
from hub.tuning.tables import Run, RunAttempt

PLAN_KIND = "run.plan"
TRAIN_KIND = "run.train"
MIRROR_KIND = "version.mirror"
DEPLOY_KIND = "version.deploy"
UNQUOTED_DAYS = 7
"""A plan without a quote is dropped after a week."""

Recipe = Mapping[str, int | float | str]


class NotTunableError(ConflictError):
    """The base cannot be fine-tuned here, or not now; the message says why."""

    code = "model_not_fine_tunable"


def create_run(
    session: Session,
    actor: Actor,
    *,
    base_version_id: str,
    dataset_version_id: str,
    model_name: str,
    now: datetime,
    recipe: Recipe | None = None,
    seed: int = 42,
    deploy_when_done: bool = False,
    cost_centre: str | None = None,
) -> Run:
    """Enter a run and queue its plan. Base by version id or public name; data by data set or version id.

    Raises:
        NotFoundError, NotVerifiedError, DatasetNotReadyError, BadModelNameError.
        NotTunableError: not a base, out of use, or its filing was withdrawn or has expired.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    slug = require_verified(session, actor.organisation_id).slug
    base = find_version(session, actor, base_version_id)
    _check_base(session, base, now)
    dataset = find_usable_version(session, actor, dataset_version_id)
    name = check_model_name(model_name, slug)
    run = Run(
        id=new_id("run"),
        organisation_id=actor.organisation_id,
        created_by=actor.user_id,
        base_version_id=base.id,
        base_public_name=name_of(session, base),
        dataset_version_id=dataset.id,
        model_name=name,
        recipe=dict(recipe or {}),
        seed=seed,
        deploy_when_done=deploy_when_done,
        cost_centre=cost_centre,
        state=RunState.VALIDATING,
        state_version=1,
        attempt=0,
        fence=0,
        created_at=now,
    )
    session.add(run)
    session.flush()
    enqueue_job(session, kind=PLAN_KIND, subject=run.id, organisation_id=run.organisation_id, now=now)
    record_event(
        session,
        "run.created",
        run.id,
        organisation_id=run.organisation_id,
        actor_id=actor.user_id,
        now=now,
        base=run.base_public_name,
        model_name=name,
    )
    return run


def find_run(session: Session, actor: Actor, run_id: str, *, lock: bool = False) -> Run:
    """Return a run of the actor's organisation; an operator sees all. Raises: NotFoundError."""
    run = session.get(Run, run_id, with_for_update=lock or None)
    if run is None or (run.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("run", run_id)
    return run


def list_runs(session: Session, actor: Actor, *, limit: int = 100) -> Sequence[Run]:
    """Return the organisation's runs, newest first."""
    statement = select(Run).where(Run.organisation_id == actor.organisation_id).order_by(Run.id.desc())
    return session.scalars(statement.limit(limit)).all()


def list_attempts(session: Session, run: Run) -> Sequence[RunAttempt]:
    """Return the attempts of a run, first to last."""
    statement = select(RunAttempt).where(RunAttempt.organisation_id == run.organisation_id, RunAttempt.run_id == run.id)
    return session.scalars(statement.order_by(RunAttempt.attempt)).all()


def cancel_run(session: Session, actor: Actor, run_id: str, *, now: datetime) -> Run:
    """Stop a run: at once before an order, else at the trainer's next safe point; the metered part is billed.

    Again, or on a finished run, nothing changes.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.state in TERMINAL or run.cancel_requested_at is not None:
        return run
    if run.state in UNORDERED:
        cancel_waiting_job(session, kind=PLAN_KIND, subject=run.id, now=now)
        move_run(
            session,
            run,
            RunState.CANCELLED,
            now=now,
            actor_id=actor.user_id,
            reason_code="user_cancelled",
            cancel_requested_at=now,
        )
        return run
    run.cancel_requested_at = now
    record_event(
        session, "run.cancel_requested", run.id, organisation_id=run.organisation_id, actor_id=actor.user_id, now=now
    )
    return run


def expire_runs(session: Session, *, now: datetime, limit: int = 100) -> int:
    """Expire runs whose quote ran out unaccepted, or that were never quoted within a week; returns how many."""
    quoted = (Run.state == RunState.QUOTED) & (Run.quote_valid_until <= now)
    planned = (Run.state == RunState.PLANNED) & (Run.planned_at <= now - timedelta(days=UNQUOTED_DAYS))
    found = session.scalars(select(Run).where(quoted | planned).order_by(Run.id).limit(limit)).all()
    for run in found:
        move_run(session, run, RunState.EXPIRED, now=now, reason_code="quote_expired")
    return len(found)


def _check_base(session: Session, base: ModelVersion, now: datetime) -> None:
    if base.kind not in TUNABLE_KINDS:
        raise NotTunableError(
            f"'{base.id}' is of kind '{base.kind}'; only {', '.join(TUNABLE_KINDS)} can be tuned. Choose a base.",
            f"“{base.id}”类型为“{base.kind}”，仅 {', '.join(TUNABLE_KINDS)} 可微调。请选择基座模型。",
            field="base",
        )
    retired = base.retires_at is not None and base.retires_at <= now
    if retired or base.state in (VersionState.QUARANTINED, VersionState.RETIRED):
        raise NotTunableError(
            f"Base '{base.id}' is out of use ('{base.state}'). Choose another base.",
            f"基座模型“{base.id}”已停用（{base.state}）。请另选。",
            field="base",
        )
    standing = standing_of(session, root_base(session, base).weights_digest, now)
    if standing.state in (StandingState.WITHDRAWN, StandingState.EXPIRED):
        en, zh = explain_standing(standing)
        raise NotTunableError(en, zh, field="base")
