"""The room's face: everything that other rooms and the worker call, under one name.

It leaves the doing to the files beside it, one idea each.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import NotFoundError
from hub.orders.allowances import grant_allowance
from hub.orders.cash import Wallet, deposit, wallet
from hub.orders.closing import close_allowance, end_lost_allowance, list_overdue_allowances
from hub.orders.month_close import close_months
from hub.orders.placing import accept_quote
from hub.orders.quotes import OfferTerms, expire_quotes, find_quote, quote_tuning
from hub.orders.rating import check_records, rate_usage
from hub.orders.rentals import end_due_rentals
from hub.orders.resolving import settle_tranches
from hub.orders.settlement import find_order, refund_order, settle_order
from hub.orders.tables import Charge, ChargePart, Order, Quote

__all__ = [
    "OfferTerms",
    "Wallet",
    "accept_quote",
    "check_records",
    "close_allowance",
    "close_months",
    "deposit",
    "end_due_rentals",
    "end_lost_allowance",
    "expire_quotes",
    "find_order",
    "find_quote",
    "grant_allowance",
    "list_charges",
    "list_earnings",
    "list_orders",
    "list_overdue_allowances",
    "list_quotes",
    "quote_tuning",
    "rate_usage",
    "read_order",
    "refund_order",
    "settle_order",
    "settle_tranches",
    "wallet",
]


def read_order(session: Session, actor: Actor, order_id: str) -> Order:
    """Return an order that the actor may see.

    Raises:
        NotFoundError: missing or another organisation's.
    """
    order = session.get(Order, order_id)
    if order is None or not actor.may_read(order.organisation_id):
        raise NotFoundError.of("order", order_id)
    return order


def list_orders(session: Session, organisation_id: str | None, *, subject: str | None = None) -> list[Order]:
    """Return an organisation's orders (None: anybody's), those of one run or rental where given, newest first."""
    query = select(Order)
    if organisation_id is not None:
        query = query.where(Order.organisation_id == organisation_id)
    if subject is not None:
        # By the quote, whose subject has an index.
        query = query.join(Quote, Quote.id == Order.quote_id).where(Quote.subject == subject)
    return list(session.scalars(query.order_by(Order.id.desc()).limit(500)))


def list_quotes(session: Session, organisation_id: str) -> list[Quote]:
    """Return an organisation's quotes, newest first."""
    query = select(Quote).where(Quote.organisation_id == organisation_id)
    return list(session.scalars(query.order_by(Quote.id.desc()).limit(500)))


def list_charges(session: Session, organisation_id: str, month: str) -> list[Charge]:
    """Return what an organisation was charged in a Shanghai month, in order."""
    query = select(Charge).where(Charge.organisation_id == organisation_id, Charge.month == month)
    return list(session.scalars(query.order_by(Charge.charged_at, Charge.id)))


def list_earnings(session: Session, organisation_id: str) -> list[tuple[ChargePart, Charge]]:
    """Return the parts of others' charges that an organisation received, newest first."""
    query = (
        select(ChargePart, Charge)
        .join(Charge, Charge.id == ChargePart.charge_id)
        .where(ChargePart.organisation_id == organisation_id)
        .order_by(Charge.charged_at.desc(), Charge.id)
        .limit(1000)
    )
    return [(part, charge) for part, charge in session.execute(query)]
