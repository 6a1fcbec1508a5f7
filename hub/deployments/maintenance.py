"""Machines taken out of service and back: their places get a time by which they are empty, and nothing new comes there.

Rentals and offers carry no engine, so their ends empty no place. It leaves moving adapters, finishing calls and ending
engines to the pool controller, and places elsewhere to `hub.deployments.places`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.compute.allocation import list_slots, release_one_slot
from hub.compute.tables import Node, NodeState, Slot
from hub.deployments.desired import bump_generation
from hub.errors import InvalidValueError, NotFoundError
from hub.events.service import record_event
from serving.contract import Observed, ReplicaState

NOTICE_S = (120, 7 * 24 * 3600)
"""Least and most notice: the last minute before the end belongs to running calls, and a replacement takes a minute."""


def begin_maintenance(session: Session, actor: Actor, node_id: str, *, notice_s: int, now: datetime) -> Node:
    """Let a machine take nothing new and be empty of engines after `notice_s`; again sets the time anew.

    Raises:
        ForbiddenError: not the operator. NotFoundError: no such machine. InvalidValueError: too short or too long.
    """
    least, most = NOTICE_S
    if not least <= notice_s <= most:
        raise InvalidValueError(
            f"'notice_s' is {notice_s}; it must be {least} to {most} seconds, so that calls finish and engines move.",
            f"“notice_s”为 {notice_s}，应在 {least} 至 {most} 秒之间，以便调用完成、引擎迁移。",
            field="notice_s",
        )
    node = _find_node(session, actor, node_id)
    node.state = NodeState.DRAINING
    _set_end(session, node, now + timedelta(seconds=notice_s))
    _record(session, "node.draining", node, actor, now, notice_s=notice_s)
    return node


def end_maintenance(session: Session, actor: Actor, node_id: str, *, now: datetime) -> Node:
    """Let a machine take engines again; those still there stay. Again changes nothing.

    Raises:
        ForbiddenError: not the operator. NotFoundError: no such machine.
    """
    node = _find_node(session, actor, node_id)
    if node.state is NodeState.DRAINING:
        node.state = NodeState.UP
        _set_end(session, node, None)
        _record(session, "node.resumed", node, actor, now)
    return node


def release_ended(session: Session, message: Observed, *, generation: int, now: datetime) -> int:
    """Release places whose time is over, and those that end and are empty already; returns how many.

    A controller that has not seen the newest desired state may be about to start an engine: then only time counts.
    """
    used = {item.slot_id for item in message.replicas if item.state is not ReplicaState.STOPPED}
    has_seen = message.generation_seen == generation
    ended = [slot for slot in list_slots(session) if _has_ended(slot, now, is_empty=has_seen and slot.id not in used)]
    for slot in ended:
        release_one_slot(slot, now=now)
    if ended:
        bump_generation(session)
    return len(ended)


def list_machines(session: Session) -> Sequence[tuple[Node, list[Slot]]]:
    """Return every machine by name with the places granted on it."""
    slots = list_slots(session)
    nodes = session.scalars(select(Node).order_by(Node.name))
    return [(node, [slot for slot in slots if slot.node_id == node.id]) for node in nodes]


def _has_ended(slot: Slot, now: datetime, *, is_empty: bool) -> bool:
    return slot.drain_by is not None and (is_empty or slot.drain_by <= now)


def _find_node(session: Session, actor: Actor, node_id: str) -> Node:
    actor.require(Role.OPERATOR)
    node = session.get(Node, node_id, with_for_update=True)
    if node is None:
        raise NotFoundError.of("machine", node_id)
    return node


def _set_end(session: Session, node: Node, drain_by: datetime | None) -> None:
    for slot in list_slots(session):
        if slot.node_id == node.id:
            slot.drain_by = drain_by
    bump_generation(session)


def _record(session: Session, topic: str, node: Node, actor: Actor, now: datetime, **payload: int) -> None:
    record_event(
        session, topic, node.id, organisation_id=node.organisation_id, actor_id=actor.user_id, now=now, **payload
    )
