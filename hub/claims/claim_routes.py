"""HTTP of claims: draft, pack, submit, payment, refusal, reconciliation, and a firm's own lines.

It leaves the rules to the service; the pack is built outside of any writing transaction.
"""

import tempfile
from contextlib import ExitStack
from typing import IO

from flask import Response, send_file
from pydantic import Field
from sqlalchemy.orm import Session

from hub.answers import Items
from hub.claims import service
from hub.claims.answers import ClaimLineView, ClaimView, ClaimWithLines, OwnClaimLine
from hub.claims.blueprint import blueprint
from hub.claims.rules import PackChangedError
from hub.claims.tables import Claim, ClaimLine, ClaimState
from hub.vouchers.tables import Programme
from hub.web import Body, Query, context, current_actor


class ClaimPath(Query):
    """One claim."""

    claim_id: str


class ClaimQuery(Query):
    """Claims in one state; all of them when left out."""

    state: ClaimState | None = None


class DraftBody(Body):
    """What to claim: a programme, one firm or all, and a period: 2026-11, 2026-Q4, 2026 or 2026-11-03--2026-12-15."""

    programme: str
    period: str
    organisation_id: str | None = None


class PaymentBody(Body):
    """What the authority paid, under the bank's reference; negative where it was repaid."""

    paid_fen: int
    reference: str = Field(max_length=100)


class ClaimReasonBody(Body):
    """Why; a reconciliation without difference needs none."""

    reason: str = Field("", max_length=1000)


@blueprint.get("/claims")
def list_claims(query: ClaimQuery) -> Items[ClaimView]:
    """Return claims of every firm, newest first, for operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_claims(session, actor, state=query.state)
        return {"items": [present_claim(session, claim) for claim in found]}


@blueprint.post("/claims")
def draft_claim(body: DraftBody) -> tuple[ClaimWithLines, int]:
    """Draft a claim of what is used and not claimed yet: up to a period's end, or of the days of a range."""
    actor, now = current_actor(), context().clock()
    with context().sessions.read() as session:
        plan = service.plan_claim(session, actor, **body.model_dump(), now=now)
    with context().sessions.write() as session:
        claim = service.place_claim(session, actor, plan, now=now)
        return present_whole_claim(session, claim), 201


@blueprint.get("/claims/<claim_id>")
def read_claim(path: ClaimPath) -> ClaimWithLines:
    """Return a claim with its lines and what was left out."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_whole_claim(session, service.find_claim(session, actor, path.claim_id))


@blueprint.get("/claims/<claim_id>/pack")
def download_pack(path: ClaimPath) -> Response:
    """Return the claim's ZIP; once submitted, exactly the bytes that were."""
    actor = current_actor()
    with ExitStack() as until_sent, context().sessions.read() as session:
        claim = service.find_claim(session, actor, path.claim_id)
        name = _name_pack(session, claim)
        target = until_sent.enter_context(tempfile.TemporaryFile())
        write_same_pack(session, claim, target)
        until_sent.pop_all()  # Flask closes the file with the answer
    return send_file(target, mimetype="application/zip", as_attachment=True, download_name=name)


@blueprint.post("/claims/<claim_id>/submission")
def submit_claim(path: ClaimPath) -> ClaimView:
    """Build the pack and hand the claim in with its sha256; a second person does."""
    actor = current_actor()
    with context().sessions.read() as session, tempfile.TemporaryFile() as target:
        sha256 = write_same_pack(session, service.find_claim(session, actor, path.claim_id), target)
    with context().sessions.write() as session:
        claim = service.submit_claim(session, actor, path.claim_id, pack_sha256=sha256, now=context().clock())
        return present_claim(session, claim)


@blueprint.post("/claims/<claim_id>/withdrawal")
def withdraw_claim(path: ClaimPath, body: ClaimReasonBody) -> ClaimView:
    """Take a draft back."""
    actor = current_actor()
    with context().sessions.write() as session:
        claim = service.withdraw_claim(session, actor, path.claim_id, reason=body.reason, now=context().clock())
        return present_claim(session, claim)


@blueprint.post("/claims/<claim_id>/refusal")
def refuse_claim(path: ClaimPath, body: ClaimReasonBody) -> ClaimView:
    """Note that the authority refused a submitted claim; its money can be claimed again."""
    actor = current_actor()
    with context().sessions.write() as session:
        claim = service.refuse_claim(session, actor, path.claim_id, reason=body.reason, now=context().clock())
        return present_claim(session, claim)


@blueprint.post("/claims/<claim_id>/payment")
def record_payment(path: ClaimPath, body: PaymentBody) -> ClaimView:
    """Book the authority's payment."""
    actor = current_actor()
    with context().sessions.write() as session:
        claim = service.record_payment(
            session,
            actor,
            path.claim_id,
            paid_fen=body.paid_fen,
            reference=body.reference,
            now=context().clock(),
        )
        return present_claim(session, claim)


@blueprint.post("/claims/<claim_id>/reconciliation")
def reconcile_claim(path: ClaimPath, body: ClaimReasonBody) -> ClaimView:
    """Close a paid claim; a difference needs its reason."""
    actor = current_actor()
    with context().sessions.write() as session:
        claim = service.reconcile_claim(session, actor, path.claim_id, reason=body.reason, now=context().clock())
        return present_claim(session, claim)


@blueprint.get("/claim-lines")
def list_own_lines() -> Items[OwnClaimLine]:
    """Return what of the own vouchers was claimed."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_own_lines(session, actor.organisation_id)
        return {
            "items": [
                {**present_line(line), "claim": claim.number, "period": claim.period, "state": claim.state}
                for line, claim in found
            ]
        }


def write_same_pack(session: Session, claim: Claim, target: IO[bytes]) -> str:
    """Write a claim's pack and return its sha256.

    Raises:
        PackChangedError: it was submitted with other bytes; a document of it was lost or came later.
    """
    sha256 = service.write_pack(session, context().store, claim, target)
    if claim.pack_sha256 not in (None, sha256):
        raise PackChangedError(
            f"The pack of claim '{claim.id}' is {sha256} now, {claim.pack_sha256} was submitted; a document in the "
            "store was lost or added since.",
            f"申报“{claim.id}”的材料包现为 {sha256}，与提交时的 {claim.pack_sha256} 不同，请核对材料库。",
        )
    target.seek(0)
    return sha256


def present_whole_claim(session: Session, claim: Claim) -> ClaimWithLines:
    """Return a claim with its lines as JSON values."""
    lines = [present_line(line) for line in service.list_lines(session, claim.id)]
    return {**present_claim(session, claim), "lines": lines}


def present_claim(session: Session, claim: Claim) -> ClaimView:
    """Return a claim with what was left out as JSON values."""
    programme = session.get_one(Programme, claim.programme_id)
    return {
        "id": claim.id,
        "programme": programme.code,
        "number": claim.number,
        "period": claim.period,
        "organisation_id": claim.organisation_id or None,
        "state": claim.state,
        "amount_fen": claim.amount_fen,
        "paid_fen": claim.paid_fen,
        "difference_fen": None if claim.paid_fen is None else claim.paid_fen - claim.amount_fen,
        "reference": claim.paid_reference,
        "reason": claim.ended_reason,
        "pack_sha256": claim.pack_sha256,
        "drafted_by": claim.drafted_by,
        "submitted_by": claim.submitted_by,
        "cut_at": claim.cut_at.isoformat(),
        "left_out": claim.left_out,
    }


def present_line(line: ClaimLine) -> ClaimLineView:
    """Return a line as JSON values."""
    return {
        "position": line.position,
        "organisation_id": line.organisation_id,
        "grant_id": line.grant_id,
        "transfer_id": line.transfer_id,
        "amount_fen": line.amount_fen,
        "booked_at": line.booked_at.isoformat(),
    }


def _name_pack(session: Session, claim: Claim) -> str:
    code = session.get_one(Programme, claim.programme_id).code
    return f"claim-{code}-{claim.number}-{claim.period}.zip"
