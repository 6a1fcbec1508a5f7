"""HTTP of OpenAI's fine-tuning jobs: create, list, retrieve, cancel, pause, resume, events, checkpoints.

It leaves the shapes to `openai_jobs` and `openai_events`, what a body means to `openai_request`.
"""

import secrets
from typing import Any

from flask import request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.datasets.service import find_dataset
from hub.datasets.versions import hold_out_file
from hub.errors import GuanmoError, InvalidValueError, NotFoundError
from hub.tuning import service, stopping
from hub.tuning.bodies import RerunBody
from hub.tuning.openai_caller import Caller, find_caller
from hub.tuning.openai_events import cut_page, list_checkpoints, list_events
from hub.tuning.openai_ids import read_file, read_job
from hub.tuning.openai_jobs import present_job
from hub.tuning.openai_request import JobBody, read_wish
from hub.tuning.rerunning import check_confirmed, compare_rerun, rerun
from hub.tuning.submitting import submit_once
from hub.tuning.tables import Run
from hub.web import Query, context

blueprint = APIBlueprint("openai_jobs", __name__, url_prefix="/v1/fine_tuning/jobs")
_ASKED_AS = {"dataset_id": "training_file", "base": "model", "name": "suffix"}
"""Our fields by the names that OpenAI's clients send."""


class JobPath(Query):
    """One job."""

    job_id: str


class PageQuery(Query):
    """A page of jobs, events or checkpoints."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)


class JobsQuery(PageQuery):
    """A page of jobs; `metadata[key]=value`, whose names no field can have, is read from the raw query."""

    model_config = ConfigDict(extra="ignore")


@blueprint.post("")
def post_job(body: JobBody) -> dict[str, Any]:
    """Create a job: check, plan, the cheapest offer within the limit, training and serving follow by themselves."""
    wish = read_wish(body)
    key = request.headers.get("Idempotency-Key", "").strip() or None
    with context().sessions.write() as session:
        caller = find_caller(session)
        caller.check_model(body.model)
        terms = wish.terms | {"max_fen": caller.limit_fen(session, wish.terms["max_fen"])}

        def create() -> Run:
            return service.create_run(
                session,
                caller.actor,
                base_version_id=body.model,
                dataset_version_id=_find_data(session, caller, body),
                model_name=wish.model_name,
                recipe=wish.recipe,
                seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
                deploy_when_done=wish.deploy,
                cost_centre=caller.key.cost_centre,
                asked=wish.asked,
                terms=terms,
                now=context().clock(),
            )

        try:
            run = submit_once(
                session, caller.actor.organisation_id, key=key, request=body.model_dump(mode="json"), create=create
            )
        except GuanmoError as error:
            unnamed = "model" if isinstance(error, NotFoundError) else None
            error.field = _ASKED_AS.get(error.field or "", error.field or unnamed)
            raise
        return _show(session, run)


@blueprint.get("")
def get_jobs(query: JobsQuery) -> dict[str, Any]:
    """Return the organisation's jobs, newest first; `metadata[key]=value` filters."""
    with context().sessions.read() as session:
        actor = find_caller(session).actor
        runs = service.list_runs(session, actor, limit=service.MAX_LISTED)
        wanted = _read_filter()
        kept = [run for run in runs if _matches(run, wanted)]
        ids: list[dict[str, Any]] = [{"id": f"ftjob-{run.id.partition('_')[2]}", "run": run} for run in kept]
        page = cut_page(ids, after=query.after, limit=query.limit)
        page["data"] = [_show(session, item["run"]) for item in page["data"]]
        return page


@blueprint.get("/<job_id>")
def get_job(path: JobPath) -> dict[str, Any]:
    """Return one job."""
    with context().sessions.read() as session:
        return _show(session, _find(session, find_caller(session).actor, path.job_id))


@blueprint.post("/<job_id>/cancel")
def post_cancel(path: JobPath) -> dict[str, Any]:
    """Stop a job within one step; the metered part is billed."""
    with context().sessions.write() as session:
        actor = find_caller(session).actor
        run = _find(session, actor, path.job_id)
        return _show(session, stopping.cancel_run(session, actor, run.id, now=context().clock()))


@blueprint.post("/<job_id>/pause")
def post_pause(path: JobPath) -> dict[str, Any]:
    """Stop a job within one step and keep its checkpoint."""
    with context().sessions.write() as session:
        actor = find_caller(session).actor
        run = _find(session, actor, path.job_id)
        return _show(session, stopping.pause_run(session, actor, run.id, now=context().clock()))


@blueprint.post("/<job_id>/resume")
def post_resume(path: JobPath) -> dict[str, Any]:
    """Queue a paused job again."""
    with context().sessions.write() as session:
        actor = find_caller(session).actor
        run = _find(session, actor, path.job_id)
        return _show(session, stopping.resume_run(session, actor, run.id, now=context().clock()))


@blueprint.get("/<job_id>/rerun")
def get_rerun(path: JobPath) -> dict[str, Any]:
    """Return what the same job would differ in today, and the most of your own money that it would hold, in fen."""
    with context().sessions.read() as session:
        caller = find_caller(session)
        run = _find(session, caller.actor, path.job_id)
        found = compare_rerun(session, caller.actor, run.id, home=context().settings.home, now=context().clock())
        return {**found, "max_fen": (_limit_terms(session, caller, run) or {}).get("max_fen")}


@blueprint.post("/<job_id>/rerun")
def post_rerun(path: JobPath, body: RerunBody) -> dict[str, Any]:
    """Create the same job again on its own terms; a run of the pages waits for its quote to be accepted there."""
    check_confirmed(path.job_id, confirm=body.confirm)
    key = request.headers.get("Idempotency-Key", "").strip() or None
    home, now = context().settings.home, context().clock()
    with context().sessions.write() as session:
        caller = find_caller(session)
        earlier = _find(session, caller.actor, path.job_id)
        caller.check_model(earlier.base_public_name)
        terms = _limit_terms(session, caller, earlier)
        run = submit_once(
            session,
            caller.actor.organisation_id,
            key=key,
            request={"rerun": earlier.id},
            create=lambda: rerun(session, caller.actor, earlier.id, home=home, now=now, terms=terms),
        )
        return _show(session, run)


@blueprint.get("/<job_id>/events")
def get_events(path: JobPath, query: PageQuery) -> dict[str, Any]:
    """Return a job's events, newest first."""
    with context().sessions.read() as session:
        run = _find(session, find_caller(session).actor, path.job_id)
        return cut_page(list_events(session, run, context().settings.home), after=query.after, limit=query.limit)


@blueprint.get("/<job_id>/checkpoints")
def get_checkpoints(path: JobPath, query: PageQuery) -> dict[str, Any]:
    """Return a job's checkpoints that can be called."""
    with context().sessions.read() as session:
        run = _find(session, find_caller(session).actor, path.job_id)
        return cut_page(list_checkpoints(session, run, context().settings.home), after=query.after, limit=query.limit)


def _show(session: Session, run: Run) -> dict[str, Any]:
    return present_job(session, run, home=context().settings.home, now=context().clock())


def _limit_terms(session: Session, caller: Caller, run: Run) -> dict[str, Any] | None:
    """The terms that a job was created on, within the budget of the key that asks; none for a run of the pages."""
    return run.terms and run.terms | {"max_fen": caller.limit_fen(session, run.terms["max_fen"])}


def _find(session: Session, actor: Actor, job_id: str) -> Run:
    """An operator's key reaches its own organisation's jobs only: this surface is the customer's."""
    try:
        run = service.find_run(session, actor, read_job(job_id))
    except NotFoundError as error:
        raise NotFoundError.of("fine-tuning job", job_id[:80]) from error
    if run.organisation_id != actor.organisation_id:
        raise NotFoundError.of("fine-tuning job", job_id[:80])
    return run


def _find_data(session: Session, caller: Caller, body: JobBody) -> str:
    """The data set of the training file; with a validation file the version that holds it out."""
    dataset_id = _find_file(session, caller, body.training_file, "training_file")
    if body.validation_file is None:
        return dataset_id
    held_id = _find_file(session, caller, body.validation_file, "validation_file")
    now = context().clock()
    return hold_out_file(session, caller.actor, dataset_id, held_id, now=now, field="validation_file").id


def _find_file(session: Session, caller: Caller, file_id: str, field: str) -> str:
    dataset_id, _ = read_file(file_id)
    try:
        find_dataset(session, caller.actor, dataset_id)
    except NotFoundError as error:
        text = f"No file '{file_id[:80]}' here. Upload one with purpose 'fine-tune' and send its id."
        raise NotFoundError(text, f"没有文件“{file_id[:80]}”，请先以 fine-tune 用途上传。", field=field) from error
    return dataset_id


def _read_filter() -> dict[str, str] | None:
    """Return the metadata pairs asked for; None for `metadata=null`, which asks for jobs without any."""
    if request.args.get("metadata") == "null":
        return None
    unknown = [name for name in request.args if name not in ("after", "limit") and not name.startswith("metadata[")]
    if unknown:
        raise InvalidValueError(
            f"'{unknown[0][:40]}' is no filter of jobs; use after, limit, metadata[key]=value or metadata=null.",
            f"“{unknown[0][:40]}”不是可用的筛选，请使用 after、limit、metadata[key]=value 或 metadata=null。",
            field=unknown[0][:40],
        )
    pairs = {name: value for name, value in request.args.items() if name.startswith("metadata[")}
    return {name.removeprefix("metadata[").removesuffix("]"): value for name, value in pairs.items()}


def _matches(run: Run, wanted: dict[str, str] | None) -> bool:
    metadata = (run.asked or {}).get("metadata")
    if wanted is None:
        return not metadata
    return all((metadata or {}).get(key) == value for key, value in wanted.items())
