"""HTTP of filings: record one with its evidence, list, withdraw, ask for a standing.

It leaves decisions on derivatives to the catalogue's API, which knows the versions.
"""

import io
from datetime import datetime
from typing import Any

from flask import Response, send_file
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AwareDatetime

from hub.actor import READERS, Role
from hub.filings import service
from hub.filings.evidence import keep_evidence, read_evidence
from hub.filings.forms import read_form, take_files
from hub.filings.tables import Filing, Track
from hub.organisations.texts import Digest, Line, Reason
from hub.web import Body, Query, context, current_actor, request_language

blueprint = APIBlueprint("filings", __name__, url_prefix="/api/v1/filings", abp_tags=[Tag(name="filings")])


class NewFiling(Query):
    """Fields of the multipart form; the document comes as file `evidence`."""

    weights_digest: Digest
    model_name: Line
    holder: Line
    number: Line
    body: Line
    authority: Line
    track: Track = Track.FILING
    scope: Line
    filed_at: AwareDatetime
    valid_until: AwareDatetime | None = None


class Withdrawal(Body):
    """Why a filing ends."""

    reason: Reason


class FilingPath(Query):
    """One filing."""

    filing_id: str


class StandingPath(Query):
    """One base model by its weights."""

    weights_digest: Digest


class FilingFilter(Query):
    """Which filings are listed."""

    weights_digest: Digest | None = None


@blueprint.post("", summary="Record a base's filing: multipart fields and file 'evidence' (operator)")
def record_filing() -> tuple[dict[str, Any], int]:
    actor = current_actor()
    actor.require(Role.OPERATOR)
    form = read_form(NewFiling)
    [file] = take_files("evidence", least=1, most=1)
    evidence = keep_evidence(context().store, file)
    now = context().clock()
    with context().sessions.write() as session:
        filing = service.file_base(
            session,
            actor,
            **form.model_dump(),
            evidence_digest=evidence.digest,
            evidence_name=evidence.name,
            now=now,
            production=context().settings.production,
        )
    return show_filing(filing, now), 201


@blueprint.get("", summary="List filings (public)")
def list_filings(query: FilingFilter) -> dict[str, Any]:
    now = context().clock()
    with context().sessions.read() as session:
        return {"filings": [show_filing(row, now) for row in service.list_filings(session, query.weights_digest)]}


@blueprint.post("/<filing_id>/withdraw", summary="Withdraw a filing (operator)")
def withdraw_filing(path: FilingPath, body: Withdrawal) -> dict[str, Any]:
    actor = current_actor()
    now = context().clock()
    with context().sessions.write() as session:
        row = service.withdraw_filing(session, actor, path.filing_id, reason=body.reason, now=now)
        return show_filing(row, now)


@blueprint.get("/<filing_id>/evidence", summary="Download the evidence document (operator, auditor)")
def download_evidence(path: FilingPath) -> Response:
    current_actor(*READERS)
    with context().sessions.read() as session:
        filing = service.find_filing(session, path.filing_id)
    content = io.BytesIO(read_evidence(context().store, filing.evidence_digest))
    return send_file(
        content, mimetype="application/octet-stream", as_attachment=True, download_name=filing.evidence_name
    )


@blueprint.get("/standing/<weights_digest>", summary="How a base model stands now (public)")
def show_standing(path: StandingPath) -> dict[str, Any]:
    now = context().clock()
    with context().sessions.read() as session:
        standing = service.standing_of(session, path.weights_digest, now)
    en, zh = service.explain_standing(standing)
    return {
        "state": standing.state,
        "text": zh if request_language() == "zh" else en,
        "filing": show_filing(standing.filing, now) if standing.filing else None,
    }


def show_filing(row: Filing, now: datetime) -> dict[str, Any]:
    """Return what the public may see of a filing."""
    return {
        "id": row.id,
        "weights_digest": row.weights_digest,
        "model_name": row.model_name,
        "holder": row.holder,
        "number": row.number,
        "body": row.body,
        "authority": row.authority,
        "track": row.track,
        "scope": row.scope,
        "filed_at": row.filed_at.isoformat(),
        "valid_until": row.valid_until.isoformat() if row.valid_until else None,
        "withdrawn_at": row.withdrawn_at.isoformat() if row.withdrawn_at else None,
        "withdrawn_reason": row.withdrawn_reason,
        "state": service.derive_standing([row], now).state,
        "demo": row.demo,
        "evidence_digest": row.evidence_digest,
        "evidence_name": row.evidence_name,
    }
