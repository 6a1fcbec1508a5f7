"""Deploy, undeploy, roll back: the only writer of desired state and of aliases.

It leaves starting engines to the pool, which reports back through `hub.deployments.pool`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.service import find_version, price_of, root_base
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.deployments.aliases import find_alias, move_alias
from hub.deployments.desired import bump_generation
from hub.deployments.endings import find_ready, record_change, stop_deployment
from hub.deployments.idle import note_demand
from hub.deployments.own_engines import enqueue_merge, needs_own_engine
from hub.deployments.retirements import find_retirement
from hub.deployments.rollout_state import end_rollout, find_open
from hub.deployments.sets import ensure_set
from hub.deployments.tables import Deployment, DeploymentState, ReplicaSet, RolloutState
from hub.errors import ConflictError, NotFoundError
from hub.events.service import SYSTEM
from hub.ids import new_id

_NOT_SERVED = (VersionState.DRAFT, VersionState.QUARANTINED, VersionState.RETIRED)


class NotDeployableError(ConflictError):
    """The version's state forbids serving it."""

    code = "not_deployable"


def deploy(
    session: Session, actor: Actor, version_id: str, *, now: datetime, until_at: datetime | None = None
) -> Deployment:
    """Ask the pool to serve a version; its open deployment is returned again. The alias moves once it is ready.

    With `until_at` a draft is tried out: it ends by itself then, and its alias never moves; again, it lasts longer.

    Raises:
        NotFoundError: not visible to the actor, or not the actor's to deploy.
        NotDeployableError: a draft, quarantined, retired or refused.
        NoCapacityError: no machine has room for another engine.
    """
    version = find_version(session, actor, version_id)
    _require_owner(actor, version)
    is_tryout = version.state is VersionState.DRAFT and until_at is not None
    if not is_tryout and version.state in _NOT_SERVED:
        raise NotDeployableError(
            f"Version {version.id} is '{version.state}' and may not be served. Choose another version.",
            f"版本 {version.id} 状态为“{version.state}”，不能部署。请选择其他版本。",
            field="version_id",
        )
    ends = find_retirement(session, version)
    if ends is not None and ends[1] <= now:
        raise NotDeployableError(
            f"Version {version.id} was retired on {ends[1].isoformat()}. Choose another version.",
            f"版本 {version.id} 已于 {ends[1].isoformat()} 下线，请选择其他版本。",
            field="version_id",
        )
    if price_of(session, version, now) is None:
        raise NotDeployableError(
            f"Version {version.id} has no price and no default price exists. Ask the operator to publish one.",
            f"版本 {version.id} 没有价格，也没有默认价格。请联系运营方发布价格。",
        )
    base = root_base(session, version)
    is_loaded = version.id != base.id and not needs_own_engine(version)
    replica_set = ensure_set(session, base, rank=version.rank if is_loaded else None, now=now)
    found = _find_open(session, version.id)
    deployment = found or _add(session, version, replica_set, actor=actor, implied=False, now=now)
    if deployment.implied:
        deployment.implied = False
    deployment.until_at = until_at if is_tryout else None
    if version.id != base.id and _find_open(session, base.id) is None:
        _add(session, base, replica_set, actor=actor, implied=True, now=now)
    if needs_own_engine(version):
        enqueue_merge(session, version, now=now)
    note_demand(session, replica_set.id, now=now)
    bump_generation(session)
    return deployment


def undeploy(session: Session, actor: Actor, version_id: str, *, now: datetime) -> Deployment:
    """Stop serving a version; again changes nothing. The alias falls back to the version before it if that is ready.

    The engines of its base stay warm for the set's `idle_s`, so that deploying again takes no start.

    Raises:
        NotFoundError: not the actor's, or never deployed.
    """
    version = find_version(session, actor, version_id)
    _require_owner(actor, version)
    deployment = session.scalar(
        select(Deployment).where(Deployment.version_id == version.id).order_by(Deployment.id.desc()).limit(1)
    )
    if deployment is None:
        raise NotFoundError.of("deployment of", version_id)
    if deployment.state is not DeploymentState.STOPPED:
        stop_deployment(session, deployment, actor_id=actor.user_id, now=now)
        note_demand(session, deployment.set_id, now=now)
        bump_generation(session)
    return deployment


def end_tryouts(session: Session, *, now: datetime) -> int:
    """Stop every try-out whose time is up; returns how many."""
    due = select(Deployment).where(Deployment.state != DeploymentState.STOPPED, Deployment.until_at <= now)
    found = session.scalars(due.order_by(Deployment.id)).all()
    for deployment in found:
        stop_deployment(session, deployment, actor_id=SYSTEM, now=now)
        note_demand(session, deployment.set_id, now=now)
    if found:
        bump_generation(session)
    return len(found)


def roll_back(session: Session, actor: Actor, public_name: str, *, now: datetime) -> str:
    """Point an alias at the version before, or end the rollout that is under way; returns the version that answers.

    Raises:
        NotFoundError: no such alias here.
        ConflictError: there is none before, or it is not ready.
    """
    alias = find_alias(session, public_name)
    if alias is None or (alias.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("alias", public_name)
    rollout = find_open(session, public_name)
    if rollout is not None:
        end_rollout(session, rollout, RolloutState.TAKEN_BACK, "by_owner", actor.user_id, now)
        return alias.version_id
    before = find_ready(session, alias.previous_version_id)
    if before is None:
        raise ConflictError(
            f"'{public_name}' has no earlier version that is ready. Deploy that version first, then roll back.",
            f"“{public_name}”没有可用的上一版本。请先部署该版本再回退。",
        )
    move_alias(session, before, actor_id=actor.user_id, now=now)
    return before.version_id


def list_deployments(session: Session, actor: Actor, *, with_stopped: bool = False) -> Sequence[Deployment]:
    """Return the organisation's deployments, newest first; an operator sees all."""
    statement = select(Deployment).order_by(Deployment.id.desc())
    if actor.role is not Role.OPERATOR:
        statement = statement.where(Deployment.organisation_id == actor.organisation_id)
    if not with_stopped:
        statement = statement.where(Deployment.state != DeploymentState.STOPPED)
    return session.scalars(statement.limit(500)).all()


def find_open_deployment(session: Session, version_id: str) -> Deployment | None:
    """Return the deployment of a version that is not stopped."""
    return _find_open(session, version_id)


def _require_owner(actor: Actor, version: ModelVersion) -> None:
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    if version.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR:
        raise NotFoundError.of("version", version.id)


def _add(
    session: Session, version: ModelVersion, replica_set: ReplicaSet, *, actor: Actor, implied: bool, now: datetime
) -> Deployment:
    model = session.get_one(Model, version.model_id)
    deployment = Deployment(
        id=new_id("dep"),
        organisation_id=version.organisation_id,
        version_id=version.id,
        set_id=replica_set.id,
        public_name=f"{model.name}@{version.number}",
        digest=version.artifact_digest,
        state=DeploymentState.WANTED,
        implied=implied,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(deployment)
    session.flush()
    record_change(session, "deployment.wanted", deployment, actor.user_id, now)
    return deployment


def _find_open(session: Session, version_id: str) -> Deployment | None:
    return session.scalar(
        select(Deployment).where(Deployment.version_id == version_id, Deployment.state != DeploymentState.STOPPED)
    )
