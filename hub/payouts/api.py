"""HTTP of payouts: ask for earned money or take the request back, send it, enter what the bank said, read every step.

It leaves what was earned on which sale to `hub.orders`.
"""

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from hub.errors import NotFoundError
from hub.payouts import service
from hub.payouts.debts import read_debt
from hub.payouts.tables import Payout, PayoutState
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("payouts", __name__, url_prefix="/api/v1")


class PayoutQuery(Query):
    """Payouts of one organisation (others' only for operator and auditor, who see all by default), in one state."""

    organisation_id: str | None = None
    state: PayoutState | None = None


class PayoutPath(Query):
    """One payout."""

    payout_id: str


class PayoutBody(Body):
    """`idempotency_key` is the client's own; the same one on a retry returns the same payout."""

    amount_fen: int
    idempotency_key: str


class ResultBody(Body):
    """What the bank said: paid with its reference, failed or unknown with a reason."""

    result: str = Field(pattern="^(paid|failed|unknown)$")
    bank_reference: str = Field("", max_length=100)
    reason: str = Field("", max_length=500)


class PayoutStep(TypedDict):
    """One step of a payout, with the bank's reference or the reason."""

    number: int
    state: PayoutState
    bank_reference: str | None
    reason: str | None
    actor_id: str
    at: str


class PayoutView(TypedDict):
    """A payout; of `amount_fen`, `netted_fen` pays what is owed back and `sent_fen` goes to the bank."""

    id: str
    organisation_id: str
    amount_fen: int
    netted_fen: int
    sent_fen: int
    state: PayoutState
    idempotency_key: str
    requested_by: str
    requested_at: str
    steps: list[PayoutStep]


class Payouts(TypedDict):
    """Payouts, newest first, with one organisation's earnings; those are null over several organisations."""

    available_fen: int | None
    in_payout_fen: int | None
    owed_fen: int | None
    items: list[PayoutView]


def present_payout(payout: Payout) -> PayoutView:
    """Return a payout with its steps as JSON values."""
    return {
        "id": payout.id,
        "organisation_id": payout.organisation_id,
        "amount_fen": payout.amount_fen,
        "netted_fen": payout.netted_fen,
        "sent_fen": payout.sent_fen,
        "state": payout.state,
        "idempotency_key": payout.idempotency_key,
        "requested_by": payout.requested_by,
        "requested_at": payout.requested_at.isoformat(),
        "steps": [
            {
                "number": step.number,
                "state": step.state,
                "bank_reference": step.bank_reference,
                "reason": step.reason,
                "actor_id": step.actor_id,
                "at": step.at.isoformat(),
            }
            for step in payout.steps
        ],
    }


@blueprint.get("/payouts")
def list_payouts(query: PayoutQuery) -> Payouts:
    """Return payouts, newest first, with what is earned and free and what is on its way."""
    actor = current_actor()
    wide = actor.reads_all
    owner = query.organisation_id or (None if wide else actor.organisation_id)
    if owner != actor.organisation_id and not wide:
        raise NotFoundError.of("organisation", str(owner))
    with context().sessions.read() as session:
        found = service.list_payouts(session, organisation_id=owner, state=query.state)
        available, on_its_way = service.earned(session, owner) if owner else (None, None)
        return {
            "available_fen": available,
            "in_payout_fen": on_its_way,
            "owed_fen": read_debt(session, owner) if owner else None,
            "items": [present_payout(payout) for payout in found],
        }


@blueprint.post("/payouts")
def post_payout(body: PayoutBody) -> tuple[PayoutView, int]:
    """Ask for earned money."""
    actor = current_actor()
    with context().sessions.write() as session:
        payout = service.request_payout(
            session,
            actor,
            amount_fen=body.amount_fen,
            idempotency_key=body.idempotency_key,
            now=context().clock(),
        )
        return present_payout(payout), 201


@blueprint.get("/payouts/<payout_id>")
def read_payout(path: PayoutPath) -> PayoutView:
    """Return one payout."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_payout(service.find_payout(session, actor, path.payout_id))


@blueprint.post("/payouts/<payout_id>/send")
def send_payout(path: PayoutPath) -> PayoutView:
    """Instruct the bank (operator), once."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_payout(service.send_payout(session, actor, path.payout_id, now=context().clock()))


@blueprint.post("/payouts/<payout_id>/withdrawal")
def withdraw_payout(path: PayoutPath) -> PayoutView:
    """Take an own payout back before it is sent."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_payout(service.withdraw_payout(session, actor, path.payout_id, now=context().clock()))


@blueprint.post("/payouts/<payout_id>/result")
def conclude_payout(path: PayoutPath, body: ResultBody) -> PayoutView:
    """Enter what became of a payout (operator)."""
    actor = current_actor()
    with context().sessions.write() as session:
        payout = service.conclude_payout(
            session,
            actor,
            path.payout_id,
            result=PayoutState(body.result),
            bank_reference=body.bank_reference,
            reason=body.reason,
            now=context().clock(),
        )
        return present_payout(payout)
