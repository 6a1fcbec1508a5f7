"""HTTP of orders: wallet and deposits, quotes to read and accept, orders, earnings; the gateway's endpoints too.

It leaves making quotes to `hub.tuning`, which plans the run first.
"""

from dataclasses import asdict
from typing import Annotated, Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.answers import Items, ShapeOf
from hub.errors import NotFoundError
from hub.orders import service
from hub.orders.answers import AllowanceView, DepositView, Earnings, OrderView, QuoteView
from hub.orders.correction_api import register_corrections
from hub.orders.internal_api import register_internal
from hub.orders.present import present_allowance, present_earning, present_order, present_quote
from hub.orders.rental_api import register_rentals
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("orders", __name__)
register_internal(blueprint)
register_corrections(blueprint)
register_rentals(blueprint)


class OwnerQuery(Query):
    """Whose money; another organisation's only for operator and auditor."""

    organisation_id: str | None = None


class OrdersQuery(OwnerQuery):
    """Also the run or rental (`subject`) that the orders pay for; operator and auditor then need not name its firm."""

    subject: str | None = None


class QuotePath(Query):
    """One quote."""

    quote_id: str


class OrderPath(Query):
    """One order."""

    order_id: str


class DepositBody(Body):
    """Money that arrived at the bank; `reference` is the bank's and is booked once."""

    organisation_id: str
    amount_fen: int
    reference: str = Field(min_length=1, max_length=100)


class QuoteAcceptBody(Body):
    """`idempotency_key` is the client's own; the same one on a retry returns the same order."""

    idempotency_key: str
    cost_centre: str | None = Field(None, max_length=100)


class AllowancePath(Query):
    """One allowance."""

    allowance_id: str


class EndAllowanceBody(Body):
    """Why the gateway is taken for lost; it stands in the event."""

    reason: str = Field(max_length=500)


@blueprint.get("/api/v1/wallet")
def read_wallet(query: OwnerQuery) -> Annotated[dict[str, Any], ShapeOf(service.Wallet)]:
    """Return cash, what of it is held, and earnings."""
    owner = _read_owner(current_actor(), query.organisation_id)
    with context().sessions.read() as session:
        return asdict(service.wallet(session, owner))


@blueprint.post("/api/v1/deposits")
def deposit(body: DepositBody) -> tuple[DepositView, int]:
    """Book a deposit (operator)."""
    actor = current_actor()
    with context().sessions.write() as session:
        transfer = service.deposit(
            session,
            actor,
            body.organisation_id,
            amount_fen=body.amount_fen,
            reference=body.reference,
            now=context().clock(),
        )
        money = service.wallet(session, body.organisation_id)
        return {"transfer_id": transfer.id, "wallet": asdict(money)}, 201


@blueprint.get("/api/v1/quotes")
def list_quotes(query: OwnerQuery) -> Items[QuoteView]:
    """Return quotes, newest first."""
    owner = _read_owner(current_actor(), query.organisation_id)
    with context().sessions.read() as session:
        return {"items": [present_quote(quote) for quote in service.list_quotes(session, owner)]}


@blueprint.get("/api/v1/quotes/<quote_id>")
def read_quote(path: QuotePath) -> QuoteView:
    """Return one quote."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_quote(service.find_quote(session, actor, path.quote_id))


@blueprint.post("/api/v1/quotes/<quote_id>/accept")
def accept_quote(path: QuotePath, body: QuoteAcceptBody) -> tuple[OrderView, int]:
    """Accept a quote: its money is held and the order stands."""
    actor = current_actor()

    def accept(session: Session) -> OrderView:
        order = service.accept_quote(
            session,
            actor,
            path.quote_id,
            idempotency_key=body.idempotency_key,
            cost_centre=body.cost_centre,
            now=context().clock(),
        )
        return present_order(order)

    # In line with the same firm's requests for money: their holds are on the same purse.
    return context().sessions.combine(f"money {actor.organisation_id}", accept), 201


@blueprint.get("/api/v1/orders")
def list_orders(query: OrdersQuery) -> Items[OrderView]:
    """Return orders, newest first."""
    actor = current_actor()
    owner: str | None = _read_owner(actor, query.organisation_id)
    if actor.reads_all and query.subject is not None and query.organisation_id is None:
        owner = None
    with context().sessions.read() as session:
        found = service.list_orders(session, owner, subject=query.subject)
        return {"items": [present_order(order) for order in found]}


@blueprint.get("/api/v1/orders/<order_id>")
def read_order(path: OrderPath) -> OrderView:
    """Return one order."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_order(service.read_order(session, actor, path.order_id))


@blueprint.get("/api/v1/earnings")
def list_earnings(query: OwnerQuery) -> Earnings:
    """Return what an organisation received of others' charges, newest first."""
    owner = _read_owner(current_actor(), query.organisation_id)
    with context().sessions.read() as session:
        items = [present_earning(part, charge) for part, charge in service.list_earnings(session, owner)]
        return {"payable_fen": service.wallet(session, owner).payable_fen, "items": items}


@blueprint.get("/api/v1/allowances")
def list_allowances() -> Items[AllowanceView]:
    """Return open allowances past their time, those of lost gateways among them (operator, auditor)."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_overdue_allowances(session, actor, context().clock())
        return {"items": [present_allowance(allowance) for allowance in found]}


@blueprint.post("/api/v1/allowances/<allowance_id>/close")
def close_lost_allowance(path: AllowancePath, body: EndAllowanceBody) -> AllowanceView:
    """Close a lost gateway's allowance on the usage that arrived and on the engines' witness (operator)."""
    actor = current_actor()
    with context().sessions.write() as session:
        ended = service.end_lost_allowance(session, actor, path.allowance_id, reason=body.reason, now=context().clock())
        return present_allowance(ended)


def _read_owner(actor: Actor, organisation_id: str | None) -> str:
    owner = organisation_id or actor.organisation_id
    if not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    return owner
