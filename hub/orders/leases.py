"""Leases of an order's holds: renewed while its job lives, and ended with the order once the job is proven gone.

It leaves the proof to the room that runs the job. Settling or refunding an order revives its holds first: under the
order's lock either the end or the sweep comes first, never both.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.errors import ConflictError
from hub.events.service import SYSTEM, record_event
from hub.ledger.leases import expire_hold, renew_holds
from hub.ledger.tables import HoldLease, Transfer
from hub.orders.tables import Fault, Order, OrderState

LEASE_S = 3_600
"""How long an order's money stays held without a sign of life of its job (our default)."""
HOLD_EXPIRED = "hold_expired"
MAX_LOOKED_AT = 200


class OrderAliveError(ConflictError):
    """The order's holds have not expired: its job gave a sign of life within the lease."""

    code = "order_alive"


def keep_alive(session: Session, order_id: str, *, now: datetime) -> bool:
    """Renew an order's holds once half of their lease is over; returns whether it did. Nothing for an ended order."""
    due = _list_open_holds(session, order_id, until=now + timedelta(seconds=LEASE_S / 2))
    if due:
        renew_holds(session, due, lease_s=LEASE_S, now=now)
    return bool(due)


def revive_holds(session: Session, order_id: str, *, now: datetime) -> None:
    """Renew what has expired of an order's holds, so that its end can post them; the caller has locked the order."""
    expired = _list_open_holds(session, order_id, until=now)
    if expired:
        renew_holds(session, expired, lease_s=LEASE_S, now=now)


def list_lapsing(session: Session, now: datetime) -> list[Order]:
    """Return held orders of which a lease is half over or expired, the longest unheard of first."""
    query = (
        select(Order)
        .join(Transfer, Transfer.business_id == Order.id)
        .join(HoldLease, HoldLease.hold_id == Transfer.id)
        .where(Order.state == OrderState.HELD, HoldLease.expires_at <= now + timedelta(seconds=LEASE_S / 2))
        .order_by(HoldLease.expires_at, Order.id)
        .limit(MAX_LOOKED_AT)
    )
    return list(dict.fromkeys(session.scalars(query)))


def have_expired(session: Session, order_id: str, *, now: datetime) -> bool:
    """Say whether the lease of every open hold of an order has run out."""
    return len(_list_open_holds(session, order_id, until=now)) == len(_list_open_holds(session, order_id))


def end_dead_order(session: Session, order_id: str, *, now: datetime) -> Order:
    """Release an order whose job is proven gone: its expired holds are voided and nothing is charged. Idempotent.

    Raises:
        OrderAliveError: a hold has not expired.
    """
    order = session.get_one(Order, order_id, with_for_update=True, populate_existing=True)
    if order.state is not OrderState.HELD:
        return order
    expired = _list_open_holds(session, order.id, until=now)
    if not have_expired(session, order.id, now=now):
        raise OrderAliveError(
            f"Order '{order.id}' was heard of within {LEASE_S} s; its money stays held.",
            f"订单“{order.id}”在 {LEASE_S} 秒内仍有活动，继续冻结。",
        )
    for held in session.scalars(select(Transfer).where(Transfer.id.in_(expired)).order_by(Transfer.id)).all():
        expire_hold(session, held, now)
    order.state, order.closed_at, order.metered = OrderState.REFUNDED, now, {}
    order.fault, order.reason_code = Fault.PLATFORM, HOLD_EXPIRED
    session.flush()
    record_event(
        session,
        "order.refunded",
        order.id,
        organisation_id=order.organisation_id,
        actor_id=SYSTEM,
        now=now,
        order_subject=order.subject,
        charged_fen=0,
        voucher_fen=0,
        fault=order.fault,
        reason_code=order.reason_code,
    )
    return order


def _list_open_holds(session: Session, order_id: str, *, until: datetime | None = None) -> Sequence[str]:
    """Return the ids of an order's holds that nothing has ended; of those that expire by `until`, where given."""
    query = (
        select(HoldLease.hold_id)
        .join(Transfer, Transfer.id == HoldLease.hold_id)
        .where(Transfer.business_id == order_id)
        .order_by(HoldLease.hold_id)
    )
    return session.scalars(query if until is None else query.where(HoldLease.expires_at <= until)).all()
