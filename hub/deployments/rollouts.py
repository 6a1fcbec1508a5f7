"""Rollouts: a new version takes a share of an alias's calls, then all of them or none.

It leaves deploying to `service`, drawing the version of a call to the gateway, and asking test cases to `hub.tuning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.service import find_version, price_of, root_base
from hub.catalogue.tables import Model, ModelVersion
from hub.deployments import rollout_rules as rules
from hub.deployments.aliases import find_alias, move_alias
from hub.deployments.endings import find_ready
from hub.deployments.rollout_state import UNDER_WAY, begin_if_waiting, end_rollout, find_open, tell
from hub.deployments.service import deploy
from hub.deployments.tables import Deployment, DeploymentState, Rollout, RolloutState
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import SYSTEM
from hub.ids import new_id
from hub.metering.outcomes import read_outcomes
from hub.prices.service import price_lines


class RolloutRefusedError(ConflictError):
    """The two versions cannot share one name, or the step does not fit the rollout's state."""

    code = "rollout_refused"


@dataclass(frozen=True)
class Terms:
    """How a rollout begins: share of the calls, when it takes itself back, and cases to ask both versions."""

    percent: int
    max_error_percent: int = rules.MAX_ERROR_PERCENT
    max_drop_percent: int = rules.MAX_DROP_PERCENT
    cases: Sequence[dict[str, str]] = field(default_factory=tuple)


def start_rollout(session: Session, actor: Actor, version_id: str, terms: Terms, *, now: datetime) -> Rollout:
    """Deploy a version and let it answer `percent` of its name's calls once it is ready; the alias stays.

    Raises:
        RolloutRefusedError: no version answers yet, it is this one, another rollout runs, or base or price differ.
        InvalidValueError: a share outside 1 to 99. Besides: what `deploy` raises.
    """
    _check_percent(terms.percent)
    version = find_version(session, actor, version_id)
    name = session.get_one(Model, version.model_id).name
    alias = find_alias(session, name)
    if alias is None or alias.version_id == version.id:
        why = "no other version answers under it yet; deploy this one"
        raise _refuse(name, why, "尚无其他版本在用，请直接部署本版本")
    if find_open(session, name) is not None:
        why = "another rollout is under way; promote it or take it back"
        raise _refuse(name, why, "已有灰度进行中，请先转正或回退")
    stable = session.get_one(ModelVersion, alias.version_id)
    _check_fit(session, name, stable, version, now)
    rollout = Rollout(
        id=new_id("rol"),
        organisation_id=version.organisation_id,
        public_name=name,
        stable_version_id=stable.id,
        version_id=version.id,
        state=RolloutState.WAITING,
        percent=terms.percent,
        max_error_percent=terms.max_error_percent,
        max_drop_percent=terms.max_drop_percent,
        cases=list(terms.cases),
        started_by=actor.user_id,
        started_at=now,
    )
    session.add(rollout)
    session.flush()
    deployment = deploy(session, actor, version_id, now=now)
    tell(session, "rollout.started", rollout, actor.user_id, now)
    if deployment.state is DeploymentState.READY:
        begin_if_waiting(session, version.id, now)
    return rollout


def set_percent(session: Session, actor: Actor, rollout_id: str, percent: int, *, now: datetime) -> Rollout:
    """Give the new version another share of the calls; callers that have it keep it when the share grows.

    Raises:
        NotFoundError: not the actor's. RolloutRefusedError: it is over. InvalidValueError: outside 1 to 99.
    """
    _check_percent(percent)
    rollout = _find_under_way(session, actor, rollout_id)
    if rollout.percent != percent:
        rollout.percent = percent
        tell(session, "rollout.shifted", rollout, actor.user_id, now)
    return rollout


def promote(session: Session, actor: Actor, rollout_id: str, *, now: datetime) -> Rollout:
    """Let the name stand for the new version; the one before stays ready for a roll-back. Idempotent.

    Raises:
        NotFoundError: not the actor's. RolloutRefusedError: taken back before, or the version is not ready.
    """
    rollout = _find_own(session, actor, rollout_id)
    if rollout.state is RolloutState.PROMOTED:
        return rollout
    ready = find_ready(session, rollout.version_id)
    if rollout.state is RolloutState.TAKEN_BACK or ready is None:
        raise _refuse(rollout.public_name, "its new version is not ready to answer", "新版本尚未就绪或已回退，不能转正")
    move_alias(session, ready, actor_id=actor.user_id, now=now)
    end_rollout(session, rollout, RolloutState.PROMOTED, None, actor.user_id, now)
    return rollout


def take_back(session: Session, actor: Actor, rollout_id: str, *, now: datetime) -> Rollout:
    """Send every call to the stable version again, at once. Idempotent.

    Raises:
        NotFoundError: not the actor's. RolloutRefusedError: promoted before; roll the alias back instead.
    """
    rollout = _find_own(session, actor, rollout_id)
    if rollout.state is RolloutState.PROMOTED:
        raise _refuse(rollout.public_name, "it was promoted; roll the name back instead", "已转正，请改用“回退”")
    if rollout.state in UNDER_WAY:
        end_rollout(session, rollout, RolloutState.TAKEN_BACK, "by_owner", actor.user_id, now)
    return rollout


def list_rollouts(session: Session, actor: Actor) -> list[Rollout]:
    """Return the organisation's rollouts, newest first; an operator sees all."""
    query = select(Rollout).order_by(Rollout.id.desc()).limit(50)
    if actor.role is not Role.OPERATOR:
        query = query.where(Rollout.organisation_id == actor.organisation_id)
    return list(session.scalars(query))


def watch_rollouts(session: Session, now: datetime) -> int:
    """Take back every rollout whose new version fails too often or cannot be loaded; returns how many."""
    ended = 0
    for rollout in session.scalars(select(Rollout).where(Rollout.state.in_(UNDER_WAY)).with_for_update()).all():
        reason = _find_fault(session, rollout)
        if reason is not None:
            end_rollout(session, rollout, RolloutState.TAKEN_BACK, reason, SYSTEM, now)
            ended += 1
    return ended


def note_probe(session: Session, rollout_id: str, probe: dict[str, Any], *, now: datetime) -> bool:
    """Keep what both versions scored on the cases; returns whether the rollout took itself back for it.

    `probe` has `stable` and `candidate`, mean scores from 0 to 1, and `cases`, how many.
    """
    rollout = session.get_one(Rollout, rollout_id, with_for_update=True)
    rollout.probe = {**probe, "at": now.isoformat()}
    tell(session, "rollout.probed", rollout, SYSTEM, now, **probe)
    worse = probe["cases"] > 0 and rules.answers_worse(
        probe["stable"], probe["candidate"], max_drop_percent=rollout.max_drop_percent
    )
    if worse and rollout.state in UNDER_WAY:
        end_rollout(session, rollout, RolloutState.TAKEN_BACK, rules.WORSE, SYSTEM, now)
    return worse


def _find_fault(session: Session, rollout: Rollout) -> str | None:
    if rollout.state is RolloutState.WAITING:
        query = select(Deployment).where(
            Deployment.version_id == rollout.version_id, Deployment.state == DeploymentState.FAILED
        )
        failed = session.scalar(query)
        return None if failed is None else failed.reason_code or "adapter_failed"
    stable, candidate = (read_outcomes(session, key) for key in (rollout.stable_version_id, rollout.version_id))
    too_many = rules.has_too_many_errors(stable, candidate, max_error_percent=rollout.max_error_percent)
    return rules.ERRORS if too_many else None


def _check_percent(percent: int) -> None:
    if not 1 <= percent <= 99:
        raise InvalidValueError(
            f"The share is {percent} %; give 1 to 99, or promote the version.",
            f"灰度比例为 {percent}%，须为 1 至 99；需要全部流量请转正。",
            field="percent",
        )


def _check_fit(session: Session, name: str, stable: ModelVersion, version: ModelVersion, now: datetime) -> None:
    """One name has one base to be routed to and one price to be reserved at."""
    if root_base(session, stable).id != root_base(session, version).id:
        why = "the two versions stand on different bases; deploy the new one"
        raise _refuse(name, why, "两个版本的基座不同，请直接部署")
    if _read_price(session, stable, now) != _read_price(session, version, now):
        why = "the two versions have different prices; give both one price"
        raise _refuse(name, why, "两个版本价格不同，请先统一价格")


def _read_price(session: Session, version: ModelVersion, now: datetime) -> frozenset[tuple[str, int, int]]:
    price = price_of(session, version, now)
    lines = price_lines(session, price.id) if price is not None else ()
    return frozenset((str(line.meter), line.amount_fen, line.per_units) for line in lines)


def _find_own(session: Session, actor: Actor, rollout_id: str) -> Rollout:
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    found = session.get(Rollout, rollout_id, with_for_update=True)
    if found is None or (found.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("rollout", rollout_id)
    return found


def _find_under_way(session: Session, actor: Actor, rollout_id: str) -> Rollout:
    found = _find_own(session, actor, rollout_id)
    if found.state not in UNDER_WAY:
        raise _refuse(found.public_name, f"it is over ({found.state})", "灰度已结束")
    return found


def _refuse(name: str, why: str, why_zh: str) -> RolloutRefusedError:
    text = f"No rollout step on '{name}': {why}."
    return RolloutRefusedError(text, f"“{name}”不能灰度：{why_zh}。", field="version_id")
