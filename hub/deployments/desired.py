"""Desired state as the pool controller reads it, and the generation that says when it changed.

It leaves deciding what is desired to `hub.deployments.service`.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.compute.allocation import list_slots
from hub.compute.tables import Slot
from hub.deployments.tables import Deployment, DeploymentState, PoolState, ReplicaSet, SetState
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
    wanted = {row.id for row in sets}
    rows = session.execute(
        select(Deployment, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Deployment.version_id)
        .where(Deployment.state != DeploymentState.STOPPED, Deployment.set_id.in_(wanted))
        .order_by(Deployment.id)
    )
    bases = {row.id: row.base_digest for row in sets}
    adapters = {
        version.artifact_digest: _present_adapter(version, bases[deployment.set_id])
        for deployment, version in rows
        if version.artifact_digest != bases[deployment.set_id]
    }
    return contract.Desired(
        epoch=pool.epoch if pool else 0,
        generation=pool.generation if pool else 1,
        replica_sets=tuple(_present_set(row) for row in sets),
        slots=tuple(_present_slot(slot) for slot in list_slots(session) if slot.set_id in wanted),
        adapters=tuple(adapters.values()),
    )


def _present_set(row: ReplicaSet) -> contract.ReplicaSet:
    return contract.ReplicaSet(
        set_id=row.id,
        base_digest=row.base_digest,
        uri=row.uri,
        engine=row.engine,
        purpose=row.purpose,
        min=row.min,
        max=row.max,
        max_loras=row.max_loras,
        max_lora_rank=row.max_lora_rank,
        engine_args=row.engine_args,
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


def _present_adapter(version: ModelVersion, base_digest: str) -> contract.DesiredAdapter:
    return contract.DesiredAdapter(
        digest=version.artifact_digest,
        base_digest=base_digest,
        uri=version.artifact_uri,
        rank=version.rank or 0,
        min_replicas=1,
    )
