"""HTTP of corrections: an operator corrects a settled bill, a second one approves, the firm reads what changed.

It leaves the differences to `corrections`.
"""

from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from hub.actor import READERS
from hub.errors import InvalidValueError
from hub.orders import service
from hub.orders.corrections import APPROVAL_LIMIT_FEN, Wanted, decide_correction, list_corrections, propose_correction
from hub.orders.tables import BillVersion, BillVersionState
from hub.web import Body, Query, context, current_actor


class CorrectedOrderPath(Query):
    """One order."""

    order_id: str


class CorrectionPath(Query):
    """One correction."""

    correction_id: str


class CorrectionQuery(Query):
    """Corrections in one state; all of them when left out."""

    state: str | None = None


class CorrectionBody(Body):
    """Either `metered` (all figures of the bill as they should be) or `fault` (platform, provider: full refund)."""

    reason: str = Field(max_length=500)
    metered: dict[str, int] | None = None
    fault: str | None = None
    month: str | None = None


class DecisionBody(Body):
    """What the second person says; a refusal needs a reason."""

    decision: str = Field(pattern="^(approve|refuse)$")
    reason: str = Field("", max_length=500)


def register_corrections(blueprint: APIBlueprint) -> None:
    """Add the endpoints of corrections to the room's blueprint."""
    blueprint.post("/api/v1/orders/<order_id>/corrections")(correct_order)
    blueprint.get("/api/v1/orders/<order_id>/corrections")(read_corrections)
    blueprint.get("/api/v1/corrections")(read_all_corrections)
    blueprint.post("/api/v1/corrections/<correction_id>/decision")(decide_on_correction)


def present_correction(version: BillVersion) -> dict[str, Any]:
    """Return a version of a bill as JSON values; amounts are differences in fen."""
    return {
        "id": version.id,
        "order_id": version.order_id,
        "organisation_id": version.organisation_id,
        "number": version.number,
        "state": version.state,
        "fault": version.fault,
        "metered": version.metered,
        "reason": version.reason,
        "fee_fen": version.fee_fen,
        "voucher_fen": version.voucher_fen,
        "self_paid_fen": version.cash_fen,
        "advanced_fen": version.advanced_fen,
        "approval_limit_fen": APPROVAL_LIMIT_FEN,
        "proposed_by": version.proposed_by,
        "proposed_at": version.proposed_at.isoformat(),
        "decided_by": version.decided_by,
        "decided_at": version.decided_at.isoformat() if version.decided_at else None,
        "decision_reason": version.decision_reason,
    }


def correct_order(path: CorrectedOrderPath, body: CorrectionBody) -> tuple[dict[str, Any], int]:
    """Correct a settled bill (operator): posted at once, or waiting for a second person above the limit."""
    actor = current_actor()
    wanted = Wanted(reason=body.reason, metered=body.metered, fault=body.fault, month=body.month)
    with context().sessions.write() as session:
        version = propose_correction(session, actor, path.order_id, wanted, now=context().clock())
        return present_correction(version), 201


def read_corrections(path: CorrectedOrderPath) -> dict[str, Any]:
    """Return the corrections of an order that the caller may see, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        order = service.read_order(session, actor, path.order_id)
        return {"items": [present_correction(version) for version in list_corrections(session, order_id=order.id)]}


def read_all_corrections(query: CorrectionQuery) -> dict[str, Any]:
    """Return corrections of every firm (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        found = list_corrections(session, state=_read_state(query.state))
        return {"items": [present_correction(version) for version in found]}


def decide_on_correction(path: CorrectionPath, body: DecisionBody) -> dict[str, Any]:
    """Approve or refuse a waiting correction (another operator than its author)."""
    actor = current_actor()
    with context().sessions.write() as session:
        version = decide_correction(
            session,
            actor,
            path.correction_id,
            approve=body.decision == "approve",
            reason=body.reason,
            now=context().clock(),
        )
        return present_correction(version)


def _read_state(state: str | None) -> BillVersionState | None:
    if state is None:
        return None
    if state not in set(BillVersionState):
        known = ", ".join(BillVersionState)
        raise InvalidValueError(
            f"State '{state}' is unknown; use {known}.", f"状态“{state}”未知，可用 {known}。", field="state"
        )
    return BillVersionState(state)
