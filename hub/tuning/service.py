"""Runs as people see them: create, find, list, expire. The only writer of runs beside the other files of this room.

It leaves quote and acceptance to `hub.tuning.ordering`, stopping to `hub.tuning.stopping`, executing to the handlers.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import SpecError, check_recipe_value
from hub.actor import Actor, Role
from hub.catalogue.models import find_own_model
from hub.catalogue.rules import check_model_name
from hub.catalogue.service import find_version, name_of, root_base
from hub.catalogue.tables import TUNABLE_KINDS, ModelKind, ModelVersion, VersionState
from hub.datasets.service import find_dataset, find_usable_version
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.errors import ConflictError, GuanmoError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.filings.service import StandingState, explain_standing, standing_of
from hub.ids import new_id
from hub.jobs.service import enqueue_job
from hub.organisations.service import require_verified
from hub.tuning.kinds import PLAN_KIND
from hub.tuning.moves import move_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run, RunAttempt

UNQUOTED_DAYS = 7
"""A plan without a quote is dropped after a week."""
MAX_OPEN_RUNS = 20
"""Runs of one organisation that are not over, paused ones included (our default)."""
MAX_LISTED = 10_000
"""Runs that one list of the OpenAI surface looks through."""

Recipe = Mapping[str, int | float | str]


class NotTunableError(ConflictError):
    """The base cannot be fine-tuned here, or not now; the message says why."""

    code = "model_not_fine_tunable"


class BadRecipeError(InvalidValueError):
    """A value of the recipe is unknown or out of its range."""

    code = "bad_recipe"


class RunQuotaError(GuanmoError):
    """The organisation has as many unfinished runs as it may have."""

    code = "run_quota"
    status = 429


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
    asked: Mapping[str, Any] | None = None,
    terms: Mapping[str, Any] | None = None,
    rerun_of: str | None = None,
) -> Run:
    """Enter a run and queue its plan. Base by version id or public name; data by data set or version id.

    With `terms` {offer_id, max_fen} nobody is asked again: the data may still be under check, their warnings count as
    acknowledged, and the worker accepts the cheapest quote that the terms allow.

    Raises:
        NotFoundError, NotVerifiedError, DatasetNotReadyError, BadModelNameError, BadRecipeError, RunQuotaError.
        NotTunableError: not a base, out of use, or its filing was withdrawn or has expired.
        ConflictError: the name is a model of another base.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    slug = require_verified(session, actor.organisation_id).slug
    _check_recipe(recipe or {})
    _check_quota(session, actor.organisation_id)
    base = find_version(session, actor, base_version_id)
    _check_base(session, base, now)
    dataset = _find_data(session, actor, dataset_version_id, may_wait=terms is not None)
    name = check_model_name(model_name, slug)
    find_own_model(session, name, kind=ModelKind.ADAPTER, base_model_id=base.model_id)
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
        asked=asked,
        terms=terms,
        rerun_of=rerun_of,
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


def list_runs(session: Session, actor: Actor, *, limit: int = 100, before: str | None = None) -> Sequence[Run]:
    """Return the organisation's runs, newest first, those entered before a run of that id if one is named."""
    statement = select(Run).where(Run.organisation_id == actor.organisation_id).order_by(Run.id.desc())
    if before:
        statement = statement.where(Run.id < before)
    return session.scalars(statement.limit(limit)).all()


def list_attempts(session: Session, run: Run) -> Sequence[RunAttempt]:
    """Return the attempts of a run, first to last."""
    statement = select(RunAttempt).where(RunAttempt.organisation_id == run.organisation_id, RunAttempt.run_id == run.id)
    return session.scalars(statement.order_by(RunAttempt.attempt)).all()


def expire_runs(session: Session, *, now: datetime, limit: int = 100) -> int:
    """Expire runs whose quote ran out unaccepted, or that were never quoted within a week; returns how many."""
    quoted = (Run.state == RunState.QUOTED) & (Run.quote_valid_until <= now)
    planned = (Run.state == RunState.PLANNED) & (Run.planned_at <= now - timedelta(days=UNQUOTED_DAYS))
    found = session.scalars(select(Run).where(quoted | planned).order_by(Run.id).limit(limit)).all()
    for run in found:
        move_run(session, run, RunState.EXPIRED, now=now, reason_code="quote_expired")
    return len(found)


def _check_recipe(recipe: Recipe) -> None:
    """Only names of the trainer's own list go on to it, each within its safe range."""
    for name, value in recipe.items():
        try:
            check_recipe_value(name, value)
        except SpecError as error:
            raise BadRecipeError(
                str(error), f"配方值 {error.field} 不可用：{error}", field=error.field, reason=error.code
            ) from error


def _check_quota(session: Session, organisation_id: str) -> None:
    query = select(func.count()).where(Run.organisation_id == organisation_id, Run.finished_at.is_(None))
    count = session.scalar(query) or 0
    if count >= MAX_OPEN_RUNS:
        raise RunQuotaError(
            f"{count} runs are not over yet; the limit is {MAX_OPEN_RUNS}. Wait for one, or cancel one.",
            f"有 {count} 个任务尚未结束，上限 {MAX_OPEN_RUNS}。请等待或取消其中之一。",
            limit=MAX_OPEN_RUNS,
            used=count,
        )


def _find_data(session: Session, actor: Actor, key: str, *, may_wait: bool) -> DatasetVersion:
    if may_wait:
        held = session.get(DatasetVersion, key)
        if held is not None and held.organisation_id == actor.organisation_id:
            version = held
        else:
            _, version = find_dataset(session, actor, key)
        if version.state in (DatasetState.CHECKING, DatasetState.WARNED):
            return version
    return find_usable_version(session, actor, key)


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
