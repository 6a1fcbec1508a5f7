"""Replica sets: the one of a base and purpose, made when first needed, with a place to run.

It leaves who needs it to `hub.deployments.service` and `hub.deployments.evaluating`, and its end to `idle`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.compute.allocation import NoCapacityError, grant_slot
from hub.deployments import rules
from hub.deployments.endings import find_merged_set
from hub.deployments.idle import end_idle_sets
from hub.deployments.policies import find_policy
from hub.deployments.tables import ReplicaSet, SetState
from hub.ids import new_id
from serving.contract import Purpose, Task

EVALUATE_IDLE_S = 60
"""An engine for evaluations waits so long for the next one."""


def ensure_set(
    session: Session, base: ModelVersion, *, rank: int | None, now: datetime, purpose: Purpose = Purpose.SERVE
) -> ReplicaSet:
    """Return the wanted set of a base and purpose, with a slot and room for an adapter of `rank`.

    Raises:
        NoCapacityError: no machine has room for another engine, idle ones included.
    """
    found = session.scalar(
        select(ReplicaSet)
        .where(
            ReplicaSet.base_digest == base.artifact_digest,
            ReplicaSet.serves_digest == base.artifact_digest,
            ReplicaSet.purpose == purpose,
            ReplicaSet.state == SetState.WANTED,
        )
        .with_for_update()
    )
    if found is None:
        found = _make_set(session, base, purpose, now)
        session.add(found)
        session.flush()
    found.max_lora_rank = rules.choose_lora_rank(found.max_lora_rank, rank)
    found.idle_since_at = None
    _grant_place(session, found, now)
    return found


def _grant_place(session: Session, found: ReplicaSet, now: datetime) -> None:
    """Grant the set's first place; on a full machine engines that nobody needs end for it."""
    try:
        grant_slot(session, found.id, now=now)
    except NoCapacityError:
        if not end_idle_sets(session, now=now, keep_warm=timedelta(0)):
            raise
        grant_slot(session, found.id, now=now)


def _make_set(session: Session, base: ModelVersion, purpose: Purpose, now: datetime) -> ReplicaSet:
    context_tokens = rules.choose_context_tokens(base.facts)
    policy = find_policy(session, base.id)
    serves, task = purpose is Purpose.SERVE, rules.choose_task(base.facts)
    return ReplicaSet(
        id=new_id("set"),
        base_version_id=base.id,
        base_digest=base.artifact_digest,
        uri=base.artifact_uri,
        engine=rules.ENGINE,
        purpose=purpose,
        task=task,
        serves_digest=base.artifact_digest,
        state=SetState.WANTED,
        min=policy.min if serves else 1,
        max=policy.max if serves else 1,
        max_loras=0 if task is Task.EMBED else policy.max_loras,
        max_lora_rank=rules.LEAST_LORA_RANK,
        context_tokens=context_tokens,
        engine_args=rules.choose_engine_args(base.facts, context_tokens),
        idle_s=policy.idle_s if serves else EVALUATE_IDLE_S,
        created_at=now,
    )


def ensure_merged_set(
    session: Session, base: ModelVersion, digest: str, uri: str, *, now: datetime, purpose: Purpose = Purpose.SERVE
) -> ReplicaSet:
    """Return the wanted set whose weights at `uri` carry the adapter `digest`, with a slot.

    Raises:
        NoCapacityError: no machine has room for another engine, idle ones included.
    """
    found = find_merged_set(session, digest, purpose=purpose)
    if found is None:
        found = _make_set(session, base, purpose, now)
        found.serves_digest, found.uri, found.max_loras = digest, uri, 0
        session.add(found)
        session.flush()
    _grant_place(session, found, now)
    return found
