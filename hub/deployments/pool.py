"""The pool controller's side: who leads, and what it observed. Ready makes deployments ready and moves aliases.

It leaves desired state to `hub.deployments.desired` and transport to the internal API.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.clock import from_us, to_us
from hub.compute.tables import Slot
from hub.deployments import rules
from hub.deployments.aliases import find_alias, move_alias
from hub.deployments.desired import bump_generation, find_pool, list_carried
from hub.deployments.endings import find_merged_set
from hub.deployments.evaluating import end_stale_evaluations
from hub.deployments.hot_adapters import choose_merges
from hub.deployments.idle import end_idle_sets
from hub.deployments.maintenance import release_ended
from hub.deployments.own_engines import needs_own_engine
from hub.deployments.places import grant_wanted, take_back_unused
from hub.deployments.rollout_state import begin_if_waiting, find_open, was_taken_back
from hub.deployments.tables import (
    Deployment,
    DeploymentState,
    ObservedAdapter,
    ObservedReplica,
    PoolState,
    ReplicaSet,
)
from hub.errors import ConflictError
from hub.events.service import SYSTEM, record_event
from serving import contract


class WrongEpochError(ConflictError):
    """Another controller leads now; this one must stop acting and ask to lead again."""

    code = "wrong_epoch"


def lead(session: Session, controller_id: str, *, now: datetime) -> contract.LeadGrant:
    """Make a controller the active one under a new epoch, fencing whoever led before.

    Raises:
        WrongEpochError: another controller leads and was heard within 20 s.
    """
    pool = find_pool(session)
    if pool.lead_until is not None and pool.lead_until > now and pool.controller_id != controller_id:
        raise WrongEpochError(
            f"Controller '{pool.controller_id}' leads until {pool.lead_until.isoformat()}. Ask again after that.",
            f"控制器“{pool.controller_id}”主持至 {pool.lead_until.isoformat()}，请稍后再试。",
            epoch=pool.epoch,
        )
    pool.controller_id, pool.epoch = controller_id, pool.epoch + 1
    return _extend(pool, now)


def apply_observed(session: Session, message: contract.Observed, *, now: datetime) -> contract.LeadGrant:
    """Keep what the controller reports, settle every deployment by it and renew the lead.

    Raises:
        WrongEpochError: the message's epoch is not the current one.
    """
    pool = find_pool(session)
    if message.epoch != pool.epoch:
        raise WrongEpochError(
            f"Epoch {message.epoch} is over; the current one is {pool.epoch}. Ask to lead again.",
            f"纪元 {message.epoch} 已结束，当前为 {pool.epoch}。请重新申请主持。",
            epoch=pool.epoch,
        )
    pool.generation_seen = max(pool.generation_seen, message.generation_seen)
    pool.wants = [
        {"set_id": want.set_id, "slots": want.slots, "queue_wait_ms": want.queue_wait_ms} for want in message.wants
    ]
    carried = list_carried(session)
    _keep_replicas(session, message, now)
    session.flush()
    if list_carried(session) != carried:
        bump_generation(session)
    _keep_adapters(session, message, now)
    _meter_slots(session, message)
    for deployment in session.scalars(
        select(Deployment).where(Deployment.state != DeploymentState.STOPPED).order_by(Deployment.id)
    ).all():
        _settle(session, deployment, message, now)
    choose_merges(session, message, now=now)
    end_stale_evaluations(session, now=now)
    end_idle_sets(session, now=now)
    release_ended(session, message, generation=pool.generation, now=now)
    take_back_unused(session, message, generation=pool.generation, now=now)
    grant_wanted(session, message, now=now)
    return _extend(pool, now)


def _extend(pool: PoolState, now: datetime) -> contract.LeadGrant:
    pool.lead_until = now + timedelta(seconds=rules.LEAD_S)
    return contract.LeadGrant(epoch=pool.epoch, valid_until=to_us(pool.lead_until))


def _settle(session: Session, deployment: Deployment, message: contract.Observed, now: datetime) -> None:
    """Move one deployment to what was observed of it."""
    adapter = next((item for item in message.adapters if item.digest == deployment.digest), None)
    is_base = session.get_one(ReplicaSet, deployment.set_id).base_digest == deployment.digest
    ready = deployment.digest in list_carried(session) or (
        rules.is_base_ready(deployment.set_id, message.replicas)
        if is_base
        else rules.is_adapter_ready(deployment.set_id, message.replicas, adapter)
    )
    failure = None if ready else _find_failure(session, deployment, message, adapter)
    if ready and deployment.state is not DeploymentState.READY:
        is_first = deployment.ready_at is None
        deployment.state, deployment.reason_code = DeploymentState.READY, None
        deployment.ready_at = deployment.ready_at or now
        if is_first and deployment.until_at is None:
            _move_forward(session, deployment, now)
        begin_if_waiting(session, deployment.version_id, now)
        _record(session, "deployment.ready", deployment, now)
    elif failure is not None and deployment.state is not DeploymentState.FAILED:
        deployment.state, deployment.reason_code = DeploymentState.FAILED, failure
        _record(session, "deployment.failed", deployment, now)


def _find_failure(
    session: Session, deployment: Deployment, message: contract.Observed, adapter: contract.ObservedAdapter | None
) -> str | None:
    """A merged engine may fail beside the base's; only where no slot holds the adapter does that say anything."""
    merged = None
    if needs_own_engine(session.get_one(ModelVersion, deployment.version_id)):
        merged = find_merged_set(session, deployment.digest)
    return rules.find_failure(merged.id if merged else deployment.set_id, message.replicas, adapter)


def _move_forward(session: Session, deployment: Deployment, now: datetime) -> None:
    """The alias moves when a deployment is ready for the first time, and never back to an older wish.

    While a rollout is under way on the name, only its end moves the alias; a version that was taken back before it was
    ready stays refused until somebody deploys it anew.
    """
    name = deployment.public_name.rpartition("@")[0]
    if find_open(session, name) is not None or was_taken_back(session, deployment):
        return
    alias = find_alias(session, name)
    newer = None
    if alias is not None:
        newer = session.scalar(
            select(Deployment.id).where(
                Deployment.version_id == alias.version_id,
                Deployment.state != DeploymentState.STOPPED,
                Deployment.id > deployment.id,
            )
        )
    if newer is None:
        move_alias(session, deployment, actor_id=SYSTEM, now=now)


def _keep_replicas(session: Session, message: contract.Observed, now: datetime) -> None:
    session.execute(
        delete(ObservedReplica).where(
            ObservedReplica.replica_id.not_in([replica.replica_id for replica in message.replicas])
        )
    )
    for replica in message.replicas:
        session.merge(
            ObservedReplica(
                replica_id=replica.replica_id,
                replica_epoch=replica.replica_epoch,
                set_id=replica.set_id,
                slot_id=replica.slot_id,
                allocation_epoch=replica.allocation_epoch,
                url=replica.url,
                state=replica.state,
                reason_code=replica.reason_code,
                since_at=from_us(replica.since_at),
                device_ms=replica.device_ms,
                observed_at=now,
            )
        )


def _keep_adapters(session: Session, message: contract.Observed, now: datetime) -> None:
    session.execute(
        delete(ObservedAdapter).where(ObservedAdapter.digest.not_in([item.digest for item in message.adapters]))
    )
    for item in message.adapters:
        session.merge(
            ObservedAdapter(
                digest=item.digest,
                state=item.state,
                ready_on=list(item.ready_on),
                reason_code=item.reason_code,
                observed_at=now,
            )
        )


def _meter_slots(session: Session, message: contract.Observed) -> None:
    for replica in message.replicas:
        slot = session.get(Slot, replica.slot_id)
        if slot is not None and slot.allocation_epoch == replica.allocation_epoch:
            slot.device_ms = max(slot.device_ms, replica.device_ms)


def _record(session: Session, topic: str, deployment: Deployment, now: datetime) -> None:
    record_event(
        session,
        topic,
        deployment.id,
        organisation_id=deployment.organisation_id,
        actor_id=SYSTEM,
        now=now,
        version_id=deployment.version_id,
        public_name=deployment.public_name,
        reason_code=deployment.reason_code,
    )
