"""HTTP of corrections: an operator corrects a settled bill, a second one approves, the firm reads what changed.

It leaves the differences to `corrections`.
"""

from typing import Annotated, Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from hub.actor import READERS
from hub.answers import Items, ShapeOf
from hub.errors import InvalidValueError, NotFoundError
from hub.orders import service
from hub.orders.call_corrections import CallsWanted, bill_late_calls, propose_call_correction
from hub.orders.call_figures import CallFigures, list_late
from hub.orders.correction_steps import APPROVAL_LIMIT_FEN, list_corrections
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.deciding import decide_correction
from hub.orders.tables import BillLine, BillVersion, BillVersionState
from hub.web import Body, Query, context, current_actor
from serving.contract import UsageRecord


class CorrectedOrderPath(Query):
    """One order."""

    order_id: str


class CorrectionPath(Query):
    """One correction."""

    correction_id: str


class CorrectionQuery(Query):
    """Corrections in one state; all of them when left out."""

    state: str | None = None


class BillCorrectionBody(Body):
    """Either `metered` (all figures of the bill as they should be) or `fault` (platform, provider: full refund)."""

    reason: str = Field(max_length=500)
    metered: dict[str, int] | None = None
    fault: str | None = None
    month: str | None = None


class BillLinePath(Query):
    """One bill line of hosted calls, as the statement names it."""

    bill_line_id: str


class CallBody(BaseModel):
    """One call as it should be billed; with a fault its figures do not count."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str = Field(max_length=200)
    attempt: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class CallsBody(Body):
    """Either `calls` with their right figures, or `fault` (platform, provider): those calls, or all, for nothing."""

    reason: str = Field(max_length=500)
    calls: list[CallBody] = Field(default=[], max_length=5_000)
    fault: str | None = None
    month: str | None = None


class SourceBody(BaseModel):
    """Where a late record is kept."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gateway_id: str
    gateway_epoch: int
    seq: int


class LateBody(Body):
    """Late records to bill."""

    reason: str = Field(max_length=500)
    sources: list[SourceBody] = Field(min_length=1, max_length=500)


class CorrectionDecisionBody(Body):
    """What the second person says; a refusal needs a reason."""

    decision: str = Field(pattern="^(approve|refuse)$")
    reason: str = Field("", max_length=500)


class CorrectedCalls(TypedDict):
    """Request, attempt, prompt, cached and completion tokens of each call, and where a late one's record is kept."""

    calls: list[tuple[str, int, int, int, int, tuple[str, int, int] | None]]


class Correction(TypedDict):
    """A version of a bill; amounts are differences in fen, `number` is given when it is posted.

    `elapsed_fen` is what the platform pays the provider for time on no bill; negative, it takes it back.
    """

    id: str
    order_id: str | None
    bill_line_id: str | None
    organisation_id: str
    number: int | None
    state: BillVersionState
    fault: str | None
    metered: CorrectedCalls | dict[str, int]
    reason: str
    fee_fen: int
    voucher_fen: int
    self_paid_fen: int
    advanced_fen: int
    elapsed_fen: int
    approval_limit_fen: int
    proposed_by: str
    proposed_at: str
    decided_by: str | None
    decided_at: str | None
    decision_reason: str | None


class LateCall(TypedDict):
    """A record that arrived after its money was closed, named by gateway, epoch and number."""

    gateway_id: str
    gateway_epoch: int
    seq: int
    received_at: str
    record: Annotated[dict[str, Any], ShapeOf(UsageRecord)]


def register_corrections(blueprint: APIBlueprint) -> None:
    """Add the endpoints of corrections to the room's blueprint."""
    blueprint.post("/api/v1/orders/<order_id>/corrections")(correct_order)
    blueprint.get("/api/v1/orders/<order_id>/corrections")(read_corrections)
    blueprint.post("/api/v1/bill-lines/<bill_line_id>/corrections")(correct_calls)
    blueprint.get("/api/v1/bill-lines/<bill_line_id>/corrections")(read_line_corrections)
    blueprint.get("/api/v1/late-calls")(read_late_calls)
    blueprint.post("/api/v1/late-calls/billed")(bill_late)
    blueprint.get("/api/v1/corrections")(read_all_corrections)
    blueprint.get("/api/v1/corrections/<correction_id>")(read_one_correction)
    blueprint.post("/api/v1/corrections/<correction_id>/decision")(decide_on_correction)


def present_correction(version: BillVersion) -> Correction:
    """Return a version of a bill as JSON values; amounts are differences in fen."""
    return {
        "id": version.id,
        "order_id": version.order_id,
        "bill_line_id": version.bill_line_id,
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
        "elapsed_fen": version.elapsed_fen,
        "approval_limit_fen": APPROVAL_LIMIT_FEN,
        "proposed_by": version.proposed_by,
        "proposed_at": version.proposed_at.isoformat(),
        "decided_by": version.decided_by,
        "decided_at": version.decided_at.isoformat() if version.decided_at else None,
        "decision_reason": version.decision_reason,
    }


def correct_order(path: CorrectedOrderPath, body: BillCorrectionBody) -> tuple[Correction, int]:
    """Correct a settled bill (operator): posted at once, or waiting for a second person above the limit."""
    actor = current_actor()
    wanted = Wanted(reason=body.reason, metered=body.metered, fault=body.fault, month=body.month)
    with context().sessions.write() as session:
        version = propose_correction(session, actor, path.order_id, wanted, now=context().clock())
        return present_correction(version), 201


def read_corrections(path: CorrectedOrderPath) -> Items[Correction]:
    """Return the corrections of an order that the caller may see, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        order = service.read_order(session, actor, path.order_id)
        return {"items": [present_correction(version) for version in list_corrections(session, order_id=order.id)]}


def correct_calls(path: BillLinePath, body: CallsBody) -> tuple[Correction, int]:
    """Correct hosted calls of a bill line (operator): posted at once, above the limit by a second person."""
    actor = current_actor()
    calls = [CallFigures(**call.model_dump()) for call in body.calls]
    wanted = CallsWanted(body.reason, calls, fault=body.fault, month=body.month)
    with context().sessions.write() as session:
        version = propose_call_correction(session, actor, path.bill_line_id, wanted, now=context().clock())
        return present_correction(version), 201


def read_line_corrections(path: BillLinePath) -> Items[Correction]:
    """Return the corrections of a bill line that the caller may see, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        line = session.get(BillLine, path.bill_line_id)
        if line is None or not actor.may_read(line.organisation_id):
            raise NotFoundError.of("bill line", path.bill_line_id)
        return {"items": [present_correction(version) for version in list_corrections(session, bill_line_id=line.id)]}


def read_late_calls() -> Items[LateCall]:
    """Return calls that arrived after their allowance was closed and that nobody has billed (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {
            "items": [
                {
                    "gateway_id": row.gateway_id,
                    "gateway_epoch": row.gateway_epoch,
                    "seq": row.seq,
                    "received_at": row.received_at.isoformat(),
                    "record": row.record,
                }
                for row in list_late(session)
            ]
        }


def bill_late(body: LateBody) -> tuple[Items[Correction], int]:
    """Bill late calls (operator): one correction for each bill line that they fall on."""
    actor = current_actor()
    sources = [(source.gateway_id, source.gateway_epoch, source.seq) for source in body.sources]
    with context().sessions.write() as session:
        versions = bill_late_calls(session, actor, sources, reason=body.reason, now=context().clock())
        return {"items": [present_correction(version) for version in versions]}, 201


def read_all_corrections(query: CorrectionQuery) -> Items[Correction]:
    """Return corrections of every firm (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        found = list_corrections(session, state=_read_state(query.state))
        return {"items": [present_correction(version) for version in found]}


def read_one_correction(path: CorrectionPath) -> Correction:
    """Return a correction that the caller may see: the firm's own, any for operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        version = session.get(BillVersion, path.correction_id)
        if version is None or not actor.may_read(version.organisation_id):
            raise NotFoundError.of("correction", path.correction_id)
        return present_correction(version)


def decide_on_correction(path: CorrectionPath, body: CorrectionDecisionBody) -> Correction:
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
