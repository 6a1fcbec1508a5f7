"""Keeps the money of living runs and rentals held, and releases that of orders whose job is proven gone.

Every sign of life renews the leases of an order's holds. It leaves the leases themselves to `hub.orders.leases`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.compute.tables import HoldState, Rental
from hub.orders.leases import end_dead_order, have_expired, keep_alive, list_lapsing
from hub.orders.rental_quotes import RENTAL
from hub.orders.tables import Order
from hub.tuning.states import TERMINAL
from hub.tuning.tables import Run


def keep_holds(session: Session, now: datetime) -> int:
    """Renew the holds of orders whose job lives and end those whose job is gone; return how many ended. Idempotent.

    A job is gone only where its row says so: a run or rental that has ended, or none at all. A run that waits, is
    paused or lost its worker lives; a silent worker alone frees nothing.
    """
    ended = 0
    for order in list_lapsing(session, now):
        if _lives(session, order):
            keep_alive(session, order.id, now=now)
        elif have_expired(session, order.id, now=now):
            end_dead_order(session, order.id, now=now)
            ended += 1
    return ended


def _lives(session: Session, order: Order) -> bool:
    if order.subject_kind == RENTAL:
        rental = session.get(Rental, order.subject)
        return rental is not None and rental.state is HoldState.ACTIVE
    run = session.get(Run, order.subject)
    return run is not None and run.state not in TERMINAL and run.order_id in (None, order.id)
