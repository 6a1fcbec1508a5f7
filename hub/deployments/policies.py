"""How many engines a base may have and how long they stay idle: what the operator set, or the defaults.

It leaves starting and stopping them to the pool controller, which scales between the two numbers by queue wait.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.service import find_version
from hub.catalogue.tables import ModelVersion
from hub.deployments.desired import bump_generation
from hub.deployments.tables import ReplicaSet, ServingPolicy, SetState
from hub.errors import InvalidValueError
from hub.events.service import record_event
from serving.contract import Purpose

LIMITS = {"min": (0, 64), "max": (1, 64), "idle_s": (30, 7 * 24 * 3600), "max_loras": (1, 256)}
"""Least and most that the operator may set."""


@dataclass(frozen=True)
class Policy:
    """`min` 0 stops the last engine after `idle_s` without a call; the next call starts it again.

    `max_loras` is how many adapters one engine computes with at once.
    """

    min: int = 1
    max: int = 1
    idle_s: int = 600
    max_loras: int = 8


DEFAULT_POLICY = Policy()


def find_policy(session: Session, base_version_id: str) -> Policy:
    """Return what holds for a base."""
    row = session.get(ServingPolicy, base_version_id)
    return DEFAULT_POLICY if row is None else Policy(row.min, row.max, row.idle_s, row.max_loras)


def set_policy(session: Session, actor: Actor, base: str, policy: Policy, *, now: datetime) -> ModelVersion:
    """Let a policy hold for a base, given by name or version id, and for its engines that run now.

    Raises:
        ForbiddenError: not the operator. NotFoundError: no such version.
        InvalidValueError: not a base, or a number outside its limits.
    """
    actor.require(Role.OPERATOR)
    version = find_version(session, actor, base)
    if version.base_version_id is not None:
        raise InvalidValueError(
            f"'{base}' is an adapter; engines belong to its base '{version.base_version_id}'. Name the base.",
            f"“{base}”是适配器，引擎属于其基座“{version.base_version_id}”。请填写基座。",
            field="base",
        )
    _check(policy)
    row = session.get(ServingPolicy, version.id) or ServingPolicy(base_version_id=version.id)
    for name, value in asdict(policy).items():
        setattr(row, name, value)
    row.set_by, row.set_at = actor.user_id, now
    session.add(row)
    _apply(session, version, policy)
    record_event(
        session,
        "serving_policy.set",
        version.id,
        organisation_id=version.organisation_id,
        actor_id=actor.user_id,
        now=now,
        **asdict(policy),
    )
    return version


def list_policies(session: Session) -> list[tuple[ModelVersion, Policy]]:
    """Return every base that has a policy or engines, newest first."""
    known = select(ServingPolicy.base_version_id).union(
        select(ReplicaSet.base_version_id).where(ReplicaSet.state == SetState.WANTED)
    )
    bases = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(known)).order_by(ModelVersion.id.desc()))
    return [(base, find_policy(session, base.id)) for base in bases]


def _apply(session: Session, base: ModelVersion, policy: Policy) -> None:
    running = select(ReplicaSet).where(
        ReplicaSet.base_version_id == base.id,
        ReplicaSet.purpose == Purpose.SERVE,
        ReplicaSet.state == SetState.WANTED,
    )
    for row in session.scalars(running.with_for_update()):
        row.min, row.max, row.idle_s = policy.min, policy.max, policy.idle_s
        if row.max_loras > 0:  # a set that carries no adapters keeps to none
            row.max_loras = policy.max_loras
    bump_generation(session)


def _check(policy: Policy) -> None:
    for name, (least, most) in LIMITS.items():
        value = getattr(policy, name)
        if not least <= value <= most:
            raise InvalidValueError(
                f"'{name}' is {value}; it must be {least} to {most}.",
                f"“{name}”为 {value}，应在 {least} 至 {most} 之间。",
                field=name,
            )
    if policy.min > policy.max:
        raise InvalidValueError(
            f"'min' is {policy.min}, above 'max' {policy.max}. Lower it, or raise 'max'.",
            f"最少 {policy.min} 个超过最多 {policy.max} 个，请调整其中之一。",
            field="min",
        )
