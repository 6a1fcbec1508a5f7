"""Trying evaluated checkpoints out: each becomes a draft that its owner may call for an hour under a name of its own.

It leaves loading to the pool, expiry to `hub.deployments.service`, and publishing to the gate: a draft is never listed.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import Event
from hub.actor import Actor, Role
from hub.catalogue.models import find_own_model
from hub.catalogue.service import register_version
from hub.catalogue.tables import ModelKind, ModelVersion, VersionState
from hub.clock import from_us
from hub.compute.service import NoCapacityError
from hub.deployments.own_engines import DORA
from hub.deployments.service import deploy
from hub.deployments.tables import Deployment, DeploymentState
from hub.errors import NotFoundError
from hub.jobs.service import Claim, enqueue_job, finish_job, list_open_subjects, require_lock
from hub.jobs.work import DONE, Verdict, Work, later
from hub.organisations.people import find_user
from hub.tuning.kinds import TRYOUT_KIND
from hub.tuning.progress import SAMPLED_LINES, Follower, locate_attempt
from hub.tuning.service import find_run
from hub.tuning.tables import Run
from registry.artifacts import Artifact

TRYOUT_TIME = timedelta(hours=1)
OPENED_AT_END = 2
"""A job of the OpenAI surface has so many of its newest other checkpoints answering for an hour when it ends."""
_CAPACITY_PAUSE_S = 5.0
_MAX_NAME_CHARS = 40


@dataclass(frozen=True)
class Checkpoint:
    """One evaluated state of a run that can be loaded; `name` answers while it is tried out."""

    step: int
    name: str
    at: datetime
    valid_loss: float
    valid_token_accuracy: float | None
    train_loss: float | None
    folder: Path


@dataclass(frozen=True)
class Tryout:
    """A checkpoint and its try-out: `state` None until somebody asked, `queued`, then that of its deployment."""

    checkpoint: Checkpoint
    state: str | None
    until_at: datetime | None = None
    reason_code: str | None = None


def list_evaluated(run: Run, home: Path) -> list[Checkpoint]:
    """Return the run's evaluated checkpoints by step; of a step that was replayed the newer one."""
    found: dict[int, Checkpoint] = {}
    train_loss: float | None = None
    for line in Follower(home, run.id).read_new(most=SAMPLED_LINES):
        if line.type is Event.STEP:
            train_loss = _read_number(line.metrics.get("loss"))
        folder = locate_attempt(home, run.id, line.attempt) / "evaluated" / f"step-{line.step:08d}"
        loss = _read_number(line.metrics.get("valid_loss"))
        if line.type is Event.VALIDATION and loss is not None and (folder / "SHA256SUMS").is_file():
            name = f"{name_model(run, line.step)}@1"
            accuracy = _read_number(line.metrics.get("valid_token_accuracy"))
            found[line.step] = Checkpoint(line.step, name, from_us(line.at), loss, accuracy, train_loss, folder)
    return [found[step] for step in sorted(found)]


def name_model(run: Run, step: int) -> str:
    """Return the name of the model that stands for one checkpoint: the run's name, its id and the step."""
    owner, _, name = run.model_name.partition("/")
    return f"{owner}/{name[:_MAX_NAME_CHARS].rstrip('-')}-{run.id[-6:]}-step-{step}"


def request_tryout(session: Session, actor: Actor, run_id: str, step: int, *, home: Path, now: datetime) -> Checkpoint:
    """Have a checkpoint loaded for an hour; again, the hour begins anew.

    Raises:
        NotFoundError: not this organisation's run, or it has no such checkpoint.
        ForbiddenError: an auditor or provider asks.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    run = find_run(session, actor, run_id)
    if run.organisation_id != actor.organisation_id:
        raise NotFoundError.of("run", run_id)
    known = list_evaluated(run, home)
    chosen = next((one for one in known if one.step == step), None)
    if chosen is None:
        steps = ", ".join(str(one.step) for one in known) or "none yet"
        raise NotFoundError(
            f"Run {run.id} has no evaluated checkpoint of step {step}; it has: {steps}.",
            f"任务 {run.id} 没有第 {step} 步的检查点，现有：{steps}。",
            field="step",
        )
    queue_tryout(session, run, step, by=actor.user_id, now=now)
    return chosen


def queue_tryout(session: Session, run: Run, step: int | None, *, by: str, now: datetime) -> None:
    """Queue the loading of one checkpoint, or (None) of the newest ones besides what was published."""
    enqueue_job(
        session,
        kind=TRYOUT_KIND,
        subject=f"{run.id}:{'newest' if step is None else step}",
        organisation_id=run.organisation_id,
        payload={"run_id": run.id, "step": step, "by": by},
        now=now,
        max_failures=20,
    )


def open_tryouts(work: Work, claim: Claim) -> Verdict:
    """The try-out job: store the adapters, enter them as drafts, ask the pool to serve them for an hour."""
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.payload["run_id"])
    chosen = _choose(list_evaluated(run, work.settings.home), run, claim.payload["step"])
    stored = [(one, work.store.add_folder(one.folder)) for one in chosen]
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        user = find_user(session, claim.payload["by"])
        actor = Actor(user.id, run.organisation_id, user.role, user.language)
        try:
            with session.begin_nested():
                for one, artifact in stored:
                    version = _enter(session, run, one, artifact, uri=work.store.uri(artifact.digest), now=now)
                    until_at = now + TRYOUT_TIME if version.state is VersionState.DRAFT else None
                    deploy(session, actor, version.id, now=now, until_at=until_at)
        except NoCapacityError:
            return later(_CAPACITY_PAUSE_S)
        finish_job(session, claim, now=now)
    return DONE


def list_tryouts(session: Session, run: Run, home: Path) -> list[Tryout]:
    """Return every evaluated checkpoint of a run by step, with how its loading stands."""
    query = (
        select(Deployment)
        .join(ModelVersion, ModelVersion.id == Deployment.version_id)
        .where(ModelVersion.run_id == run.id, Deployment.state != DeploymentState.STOPPED)
        .where(Deployment.until_at.is_not(None))
    )
    opened = {row.public_name: row for row in session.scalars(query)}
    queued = list_open_subjects(session, TRYOUT_KIND, prefix=f"{run.id}:")
    return [_describe(one, opened.get(one.name), f"{run.id}:{one.step}" in queued) for one in list_evaluated(run, home)]


def _describe(one: Checkpoint, row: Deployment | None, is_queued: bool) -> Tryout:
    if row is None:
        return Tryout(one, "queued" if is_queued else None)
    return Tryout(one, str(row.state), row.until_at, row.reason_code)


def _choose(known: list[Checkpoint], run: Run, step: int | None) -> list[Checkpoint]:
    if step is not None:
        return [one for one in known if one.step == step]
    best = (run.metrics or {}).get("train", {}).get("best_step")
    return [one for one in known if one.step != best][-OPENED_AT_END:]


def _enter(session: Session, run: Run, one: Checkpoint, artifact: Artifact, *, uri: str, now: datetime) -> ModelVersion:
    base = session.get_one(ModelVersion, run.base_version_id)
    name = name_model(run, one.step)
    find_own_model(session, name, kind=ModelKind.ADAPTER, base_model_id=base.model_id)
    config: dict[str, Any] = json.loads((one.folder / "adapter_config.json").read_text(encoding="utf-8"))
    return register_version(
        session,
        organisation_id=run.organisation_id,
        model_name=name,
        base_version_id=base.id,
        artifact_digest=artifact.digest,
        artifact_uri=uri,
        run_id=run.id,
        rank=int(config["r"]),
        metrics={"adapter": {"loss": one.valid_loss}},
        lineage={"run_id": run.id, "step": one.step, "base_weights_digest": base.weights_digest},
        size_bytes=artifact.size_bytes,
        now=now,
        created_by=run.created_by,
        state=VersionState.DRAFT,
        variant=DORA if config.get("use_dora") else None,
    )


def _read_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
