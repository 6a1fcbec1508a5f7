"""Desired state as the pool controller reads it, and the generation that says when it changed.

It leaves deciding what is desired to `hub.deployments.service`.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.compute.allocation import list_slots
from hub.compute.tables import Slot
from hub.deployments.own_engines import needs_own_engine
from hub.deployments.retirements import find_retirement
from hub.deployments.tables import (
    Deployment,
    DeploymentState,
    Evaluation,
    ObservedReplica,
    PoolState,
    ReplicaSet,
    SetState,
)
from serving import contract

POOL_NAME = "pool"


def find_pool(session: Session) -> PoolState:
    """Return the pool's row, made on first use, locked for the caller's transaction."""
    found = session.get(PoolState, POOL_NAME, with_for_update=True)
    if found is None:
        found = PoolState(name=POOL_NAME, epoch=0, generation=1, generation_seen=0, wants=[])
        session.add(found)
        session.flush()
    return found


def bump_generation(session: Session) -> None:
    """Tell the controller that desired state changed."""
    find_pool(session).generation += 1


def read_generation(session: Session) -> int:
    """Return the current generation; 1 before anything was desired, so that a new controller learns that too."""
    return session.scalar(select(PoolState.generation).where(PoolState.name == POOL_NAME)) or 1


def build_desired(session: Session) -> contract.Desired:
    """Return everything that should run."""
    pool = session.get(PoolState, POOL_NAME)
    sets = session.scalars(select(ReplicaSet).where(ReplicaSet.state == SetState.WANTED).order_by(ReplicaSet.id)).all()
    wanted = {row.id: row for row in sets}
    pending, ends = _list_pending(session), _list_ends(session)
    return contract.Desired(
        epoch=pool.epoch if pool else 0,
        generation=pool.generation if pool else 1,
        replica_sets=tuple(
            _present_set(row, is_pending=row.id in pending, keep_until=_find_end(session, row, ends)) for row in sets
        ),
        slots=tuple(_present_slot(slot) for slot in list_slots(session) if slot.set_id in wanted),
        adapters=_list_adapters(session, wanted, pending, ends),
    )


def _list_pending(session: Session) -> set[str]:
    """Return the sets that must run though nobody calls them: something on them was never seen ready."""
    serves = or_(Deployment.set_id == ReplicaSet.id, Deployment.digest == ReplicaSet.serves_digest)
    never_ready = select(ReplicaSet.id).join(Deployment, serves)
    never_ready = never_ready.where(Deployment.state != DeploymentState.STOPPED, Deployment.ready_at.is_(None))
    asked = select(Evaluation.set_id).where(Evaluation.ended_at.is_(None))
    return {*session.scalars(never_ready), *session.scalars(asked)}


def _list_ends(session: Session) -> dict[str, int]:
    """Return when each version that is deployed or evaluated ends (µs), by version id, for those that end."""
    deployed = select(Deployment.version_id).where(Deployment.state != DeploymentState.STOPPED)
    asked = select(Evaluation.version_id).where(Evaluation.ended_at.is_(None))
    rows = session.scalars(select(ModelVersion).where(or_(ModelVersion.id.in_(deployed), ModelVersion.id.in_(asked))))
    found = {version.id: find_retirement(session, version) for version in rows.all()}
    return {version_id: to_us(end[1]) for version_id, end in found.items() if end is not None}


def _find_end(session: Session, row: ReplicaSet, ends: Mapping[str, int]) -> int | None:
    """Return when all that somebody deployed on a set has ended; None while something goes on, or nothing is there."""
    is_plain = row.serves_digest == row.base_digest
    on_it = Deployment.set_id == row.id if is_plain else Deployment.digest == row.serves_digest
    kept = session.scalars(select(Deployment).where(on_it, Deployment.state != DeploymentState.STOPPED)).all()
    found = [ends.get(deployment.version_id) for deployment in kept if not deployment.implied]
    known = [end for end in found if end is not None]
    return max(known) if known and len(known) == len(found) else None


def _list_adapters(
    session: Session, wanted: Mapping[str, ReplicaSet], pending: Collection[str], ends: Mapping[str, int]
) -> tuple[contract.DesiredAdapter, ...]:
    """Adapters of deployments and evaluations, oldest wish first, each once with every purpose it is wanted for."""
    served = select(ModelVersion, Deployment.set_id).join(Deployment, Deployment.version_id == ModelVersion.id)
    served = served.where(Deployment.state != DeploymentState.STOPPED).order_by(Deployment.id)
    asked = select(ModelVersion, Evaluation.set_id).join(Evaluation, Evaluation.version_id == ModelVersion.id)
    asked = asked.where(Evaluation.ended_at.is_(None)).order_by(Evaluation.id)
    found: dict[str, contract.DesiredAdapter] = {}
    carried = list_carried(session)
    for version, set_id in [*session.execute(served).all(), *session.execute(asked).all()]:
        row = wanted.get(set_id)
        if row is None or version.artifact_digest == row.base_digest:
            continue
        before = found.get(version.artifact_digest)
        purposes = dict.fromkeys((*(before.purposes if before else ()), row.purpose))
        needed = max(before.min_replicas if before else 0, int(_needs_engine(row, pending)))
        found[version.artifact_digest] = contract.DesiredAdapter(
            digest=version.artifact_digest,
            base_digest=row.base_digest,
            uri=version.artifact_uri,
            rank=version.rank or 0,
            min_replicas=needed,
            keep_until=ends.get(version.id),
            merged=version.artifact_digest in carried or needs_own_engine(version),
            purposes=tuple(purposes),
        )
    return tuple(found.values())


def list_carried(session: Session) -> set[str]:
    """Return the adapters that callers are answered with merged weights for now: nobody loads them beside those."""
    ready = select(ReplicaSet.serves_digest).join(ObservedReplica, ObservedReplica.set_id == ReplicaSet.id)
    ready = ready.where(
        ReplicaSet.state == SetState.WANTED,
        ReplicaSet.serves_digest != ReplicaSet.base_digest,
        ReplicaSet.purpose == contract.Purpose.SERVE,
        ObservedReplica.state == contract.ReplicaState.READY,
    )
    return set(session.scalars(ready))


def _needs_engine(row: ReplicaSet, pending: Collection[str]) -> bool:
    return row.purpose is contract.Purpose.SERVE and (row.min > 0 or row.id in pending)


def _present_set(row: ReplicaSet, *, is_pending: bool, keep_until: int | None) -> contract.ReplicaSet:
    is_plain = row.serves_digest == row.base_digest
    return contract.ReplicaSet(
        set_id=row.id,
        base_digest=row.base_digest,
        uri=row.uri,
        engine=row.engine,
        purpose=row.purpose,
        min=max(row.min, int(is_pending)),
        max=row.max,
        max_loras=row.max_loras,
        max_lora_rank=row.max_lora_rank,
        engine_args=row.engine_args,
        task=row.task,
        idle_s=row.idle_s,
        merged=None if is_plain else row.serves_digest,
        weights_folder=None if is_plain else row.uri.rstrip("/").rpartition("/")[2],
        keep_until=keep_until,
    )


def _present_slot(slot: Slot) -> contract.Slot:
    return contract.Slot(
        slot_id=slot.id,
        set_id=slot.set_id,
        node_id=slot.node_id,
        devices=tuple(slot.devices),
        allocation_epoch=slot.allocation_epoch,
        drain_by=None if slot.drain_by is None else to_us(slot.drain_by),
    )
