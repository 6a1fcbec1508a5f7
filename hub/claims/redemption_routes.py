"""HTTP of redemptions: what may be redeemed, the request and its withdrawal, the decision of two persons.

It leaves the rules to the service.
"""

from pydantic import Field
from typing_extensions import TypedDict

from hub.answers import Items
from hub.claims import service
from hub.claims.blueprint import blueprint
from hub.claims.redeemable import Redeemable
from hub.claims.tables import Redemption, RedemptionState
from hub.errors import NotFoundError
from hub.vouchers.tables import Grant
from hub.web import Body, Query, context, current_actor


class GrantPath(Query):
    """One grant."""

    grant_id: str


class RedemptionPath(Query):
    """One redemption."""

    redemption_id: str


class RedemptionQuery(Query):
    """Redemptions in one state; all of them when left out."""

    state: RedemptionState | None = None


class RedemptionBody(Body):
    """The charges whose share is asked for; a bill line of hosted calls stands for all its open charges.

    An award without a share is asked for whole, without charges.
    """

    charge_ids: list[str] = Field([], max_length=500)


class RedemptionDecisionBody(Body):
    """`check`, `approve` or `refuse`."""

    decision: str
    reason: str = Field("", max_length=1000)


class RedeemableCharge(TypedDict):
    """What a grant could pay back of a charge, or of a bill line's open charges."""

    id: str
    order_id: str | None
    month: str
    meter: str
    fee_fen: int
    charged_at: str


class RedemptionView(TypedDict):
    """A request to be paid back; `eligible_fen` are the fees that count, `amount_fen` their share."""

    id: str
    organisation_id: str
    grant_id: str
    state: RedemptionState
    eligible_fen: int
    amount_fen: int
    requested_by: str
    checked_by: str | None
    approved_by: str | None
    reason: str
    created_at: str


class RedemptionRow(RedemptionView):
    """The same with what later corrections took back of it."""

    taken_back_fen: int


class RedeemedCharge(TypedDict):
    """A charge of a redemption with the part of its fee that counts."""

    charge_id: str
    fee_fen: int


class RedemptionWithLines(RedemptionRow):
    """A redemption with its charges."""

    lines: list[RedeemedCharge]


@blueprint.get("/grants/<grant_id>/redeemable")
def list_redeemable(path: GrantPath) -> Items[RedeemableCharge]:
    """Return the charges that an own grant could reimburse."""
    actor = current_actor()
    with context().sessions.read() as session:
        grant = session.get(Grant, path.grant_id)
        if grant is None or grant.organisation_id != actor.organisation_id:
            raise NotFoundError.of("grant", path.grant_id)
        return {"items": [present_charge(charge) for charge in service.list_redeemable(session, grant)]}


@blueprint.post("/grants/<grant_id>/redemptions")
def request_redemption(path: GrantPath, body: RedemptionBody) -> tuple[RedemptionView, int]:
    """Ask for the share of charges paid in full."""
    actor = current_actor()
    with context().sessions.write() as session:
        redemption = service.request_redemption(
            session, actor, path.grant_id, charge_ids=body.charge_ids, now=context().clock()
        )
        return present_redemption(redemption), 201


@blueprint.get("/redemptions")
def list_redemptions(query: RedemptionQuery) -> Items[RedemptionRow]:
    """Return redemptions, newest first: the own ones, all for operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        rows = service.list_redemptions(session, actor, state=query.state)
        back = service.sum_taken_back(session, [row.id for row in rows])
        return {"items": [{**present_redemption(row), "taken_back_fen": back.get(row.id, 0)} for row in rows]}


@blueprint.get("/redemptions/<redemption_id>")
def read_redemption(path: RedemptionPath) -> RedemptionWithLines:
    """Return a redemption that the caller may see, with the charges that it asks for."""
    actor = current_actor()
    with context().sessions.read() as session:
        row = session.get(Redemption, path.redemption_id)
        if row is None or not actor.may_read(row.organisation_id):
            raise NotFoundError.of("redemption", path.redemption_id)
        back = service.sum_taken_back(session, [row.id]).get(row.id, 0)
        lines: list[RedeemedCharge] = [
            {"charge_id": line.charge_id, "fee_fen": line.fee_fen} for line in service.list_redeemed(session, row.id)
        ]
        return {**present_redemption(row), "taken_back_fen": back, "lines": lines}


@blueprint.post("/redemptions/<redemption_id>/reviews")
def review_redemption(path: RedemptionPath, body: RedemptionDecisionBody) -> RedemptionView:
    """Check, approve (which pays) or refuse."""
    actor = current_actor()
    with context().sessions.write() as session:
        redemption = service.review_redemption(
            session,
            actor,
            path.redemption_id,
            decision=body.decision,
            reason=body.reason,
            now=context().clock(),
        )
        return present_redemption(redemption)


@blueprint.post("/redemptions/<redemption_id>/withdrawal")
def withdraw_redemption(path: RedemptionPath) -> RedemptionView:
    """Take an own request back before anybody checked it."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_redemption(
            service.withdraw_redemption(session, actor, path.redemption_id, now=context().clock())
        )


def present_redemption(row: Redemption) -> RedemptionView:
    """Return a redemption as JSON values."""
    return {
        "id": row.id,
        "organisation_id": row.organisation_id,
        "grant_id": row.grant_id,
        "state": row.state,
        "eligible_fen": row.eligible_fen,
        "amount_fen": row.amount_fen,
        "requested_by": row.requested_by,
        "checked_by": row.checked_by,
        "approved_by": row.approved_by,
        "reason": row.reason,
        "created_at": row.created_at.isoformat(),
    }


def present_charge(charge: Redeemable) -> RedeemableCharge:
    """Return what may be redeemed as JSON values; `fee_fen` is the part that counts."""
    return {
        "id": charge.id,
        "order_id": charge.order_id,
        "month": charge.month,
        "meter": charge.meter,
        "fee_fen": charge.fee_fen,
        "charged_at": charge.charged_at.isoformat(),
    }
