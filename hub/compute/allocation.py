"""Holding devices: rentals of offers and slots of nodes, each with an epoch before anything starts on them.

It leaves starting processes to the worker and the pool controller, and bills to orders.
"""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.compute.tables import Device, HoldState, Node, NodeState, Offer, OfferState, Rental, RentalPurpose, Slot
from hub.errors import ConflictError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from hub.organisations.rules import OrganisationKind
from hub.organisations.tables import Organisation

ENGINE_GIB = 3
"""The memory that one engine counts for."""


class NoCapacityError(ConflictError):
    """Every device that could serve is held now; the same request may succeed later."""

    code = "no_capacity"


def allocate(
    session: Session,
    *,
    organisation_id: str,
    offer_id: str,
    purpose: RentalPurpose,
    now: datetime,
    run_id: str | None = None,
    set_id: str | None = None,
    order_id: str | None = None,
    limit_ms: int | None = None,
    rental_id: str | None = None,
) -> Rental:
    """Hold devices of an offer for a run, a replica set or a firm's order of `limit_ms`; again returns the active one.

    Raises:
        NotFoundError: no such offer.
        NoCapacityError: all of the offer's devices are held.
    """
    offer = session.get(Offer, offer_id, with_for_update=True)
    if offer is None:
        raise NotFoundError.of("offer", offer_id)
    held = list(session.scalars(select(Rental).where(Rental.offer_id == offer_id, Rental.state == HoldState.ACTIVE)))
    for rental in held:
        if (rental.run_id, rental.set_id, rental.order_id) == (run_id, set_id, order_id):
            return rental
    if len(held) >= offer.available:
        raise NoCapacityError(
            f"Offer {offer_id} has {offer.available} place(s), all held. Wait, or choose another offer.",
            f"报价 {offer_id} 的 {offer.available} 个席位均已占用。请稍候或另选报价。",
            limit=offer.available,
            used=len(held),
        )
    offer.allocation_epoch += 1
    rental = Rental(
        id=rental_id or new_id("rtl"),
        organisation_id=organisation_id,
        provider_organisation_id=offer.organisation_id,
        offer_id=offer.id,
        purpose=purpose,
        run_id=run_id,
        set_id=set_id,
        order_id=order_id,
        limit_ms=limit_ms,
        state=HoldState.ACTIVE,
        allocation_epoch=offer.allocation_epoch,
        device_ms=0,
        meter_seq=0,
        allocated_at=now,
    )
    session.add(rental)
    session.flush()
    _record_rental(session, "rental.allocated", rental, now)
    return rental


def meter_rental(session: Session, rental_id: str, *, device_ms: int, seq: int) -> Rental:
    """Note the cumulative device time of a rental; an older `seq` or a smaller total changes nothing."""
    rental = session.get(Rental, rental_id, with_for_update=True)
    if rental is None:
        raise NotFoundError.of("rental", rental_id)
    if seq > rental.meter_seq and device_ms >= rental.device_ms:
        rental.meter_seq, rental.device_ms = seq, device_ms
    return rental


def release(session: Session, rental_id: str, *, device_ms: int, now: datetime, fault: str | None = None) -> Rental:
    """End a rental with its final cumulative device time; again changes nothing. Raises: NotFoundError."""
    rental = session.get(Rental, rental_id, with_for_update=True)
    if rental is None:
        raise NotFoundError.of("rental", rental_id)
    if rental.state is HoldState.ACTIVE:
        rental.state, rental.released_at, rental.fault = HoldState.RELEASED, now, fault
        rental.device_ms = max(rental.device_ms, device_ms)
        _record_rental(session, "rental.released", rental, now)
    return rental


def count_free(session: Session, offer: Offer) -> int:
    """Return how many more rentals of an offer may start now."""
    if offer.state is not OfferState.OPEN:
        return 0
    held = session.scalar(
        select(func.count()).select_from(Rental).where(Rental.offer_id == offer.id, Rental.state == HoldState.ACTIVE)
    )
    return max(0, offer.available - (held or 0))


def ensure_machine(
    session: Session, *, name: str, device: Device, devices: list[str], cpu_threads: int, memory_gib: int, now: datetime
) -> Node | None:
    """Enter this machine as the operator's node, or note that it was seen; None while there is no operator yet."""
    owner = session.scalar(
        select(Organisation).where(Organisation.kind == OrganisationKind.OPERATOR).order_by(Organisation.id).limit(1)
    )
    if owner is None:
        return None
    node = session.scalar(select(Node).where(Node.organisation_id == owner.id, Node.name == name))
    if node is None:
        node = Node(id=new_id("nod"), organisation_id=owner.id, name=name, state=NodeState.UP, created_at=now)
        session.add(node)
    node.device, node.devices = device, devices
    node.cpu_threads, node.memory_gib = cpu_threads, memory_gib
    node.serve_slots = max(2, min(8, memory_gib // ENGINE_GIB))
    node.seen_at = now
    session.flush()
    return node


def grant_slot(session: Session, set_id: str, *, now: datetime, one_more: bool = False) -> Slot:
    """Grant a replica set devices on the node with most room; unless `one_more`, its slot that stays is returned again.

    Raises:
        NoCapacityError: no node is up, or all places are granted.
    """
    staying = select(Slot).where(Slot.set_id == set_id, Slot.state == HoldState.ACTIVE, Slot.drain_by.is_(None))
    found = session.scalar(staying.limit(1))
    if found is not None and not one_more:
        return found
    nodes = session.scalars(select(Node).where(Node.state == NodeState.UP).order_by(Node.id).with_for_update()).all()
    free = {node.id: node.serve_slots - _count_slots(session, node.id) for node in nodes}
    node = max(nodes, key=lambda node: free[node.id], default=None)
    if node is None or free[node.id] < 1:
        raise NoCapacityError(
            f"No room for another engine on {len(nodes)} machine(s). Undeploy a model, or start a worker on one more.",
            f"没有机器可再启动推理引擎（在线 {len(nodes)} 台）。请下线一个模型或增加机器。",
            limit=sum(node.serve_slots for node in nodes),
        )
    epoch = session.scalar(select(func.max(Slot.allocation_epoch)).where(Slot.node_id == node.id)) or 0
    slot = Slot(
        id=new_id("slt"),
        organisation_id=node.organisation_id,
        node_id=node.id,
        set_id=set_id,
        state=HoldState.ACTIVE,
        devices=node.devices,
        allocation_epoch=epoch + 1,
        device_ms=0,
        granted_at=now,
    )
    session.add(slot)
    session.flush()
    return slot


def count_free_places(session: Session) -> int:
    """Return how many more engines the machines that are up have room for."""
    nodes = session.scalars(select(Node).where(Node.state == NodeState.UP))
    return sum(max(0, node.serve_slots - _count_slots(session, node.id)) for node in nodes)


def release_slot(session: Session, set_id: str, *, now: datetime) -> None:
    """Take back what a replica set holds; nothing happens where it holds nothing."""
    for slot in session.scalars(select(Slot).where(Slot.set_id == set_id, Slot.state == HoldState.ACTIVE)):
        release_one_slot(slot, now=now)


def release_one_slot(slot: Slot, *, now: datetime) -> None:
    """Take back one place; the engine on it ends when the pool hears of it."""
    slot.state, slot.released_at = HoldState.RELEASED, now


def list_slots(session: Session) -> list[Slot]:
    """Return all active slots, oldest first."""
    return list(session.scalars(select(Slot).where(Slot.state == HoldState.ACTIVE).order_by(Slot.id)))


def _count_slots(session: Session, node_id: str) -> int:
    statement = select(func.count()).select_from(Slot).where(Slot.node_id == node_id, Slot.state == HoldState.ACTIVE)
    return session.scalar(statement) or 0


def _record_rental(session: Session, topic: str, rental: Rental, now: datetime) -> None:
    record_event(
        session,
        topic,
        rental.id,
        organisation_id=rental.organisation_id,
        actor_id=SYSTEM,
        now=now,
        offer_id=rental.offer_id,
        run_id=rental.run_id,
        order_id=rental.order_id,
        fault=rental.fault,
        allocation_epoch=rental.allocation_epoch,
        device_ms=rental.device_ms,
    )
