"""Places of engines as their load asks for them: granted when the controller wants more, taken back when unused.

It leaves how many engines a set should have to the controller, and the first place of a set to `hub.deployments.sets`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute.allocation import NoCapacityError, grant_slot, list_slots, release_one_slot
from hub.deployments.desired import bump_generation
from hub.deployments.idle import end_idle_sets
from hub.deployments.tables import ReplicaSet, SetState
from serving.contract import Observed, ReplicaState

UNUSED_FOR = timedelta(seconds=30)
"""A fresh place is not unused yet: the controller has to hear of it and start an engine."""


def grant_wanted(session: Session, message: Observed, *, now: datetime) -> int:
    """Grant each set one place more where the controller wants it and its `max` allows; places that end do not count.

    A full machine gives nothing; engines that nobody needs end for it. Returns how many were granted.
    """
    granted = 0
    for want in message.wants:
        row = session.get(ReplicaSet, want.set_id)
        held = sum(slot.set_id == want.set_id and slot.drain_by is None for slot in list_slots(session))
        if row is None or row.state is not SetState.WANTED or held >= row.max:
            continue
        granted += _grant(session, row.id, now)
    if granted:
        bump_generation(session)
    return granted


def take_back_unused(session: Session, message: Observed, *, generation: int, now: datetime) -> int:
    """Release places on which no engine is, once the controller has seen what is desired; returns how many."""
    if message.generation_seen != generation:
        return 0
    used = {item.slot_id for item in message.replicas if item.state is not ReplicaState.STOPPED}
    wanting = {want.set_id for want in message.wants}
    serving = set(session.scalars(select(ReplicaSet.id).where(ReplicaSet.state == SetState.WANTED)))
    unused = [
        slot
        for slot in list_slots(session)
        if slot.set_id in serving - wanting and slot.id not in used and slot.granted_at <= now - UNUSED_FOR
    ]
    for slot in unused:
        release_one_slot(slot, now=now)
    if unused:
        bump_generation(session)
    return len(unused)


def _grant(session: Session, set_id: str, now: datetime) -> bool:
    for is_last_try in (False, True):
        try:
            grant_slot(session, set_id, now=now, one_more=True)
        except NoCapacityError:
            if is_last_try or not end_idle_sets(session, now=now, keep_warm=timedelta(0)):
                return False
        else:
            return True
    return False
