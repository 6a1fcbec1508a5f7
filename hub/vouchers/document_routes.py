"""HTTP of documents: keep one, so that an application or a month of a grant can name it by its digest, and open it.

It leaves which documents are allowed to `hub.filings.evidence` and what they prove to applications and papers.
"""

import io
from pathlib import PurePath

from flask import Response, send_file
from typing_extensions import TypedDict

from hub.actor import READERS, Role
from hub.filings.evidence import find_document, keep_evidence, read_evidence
from hub.filings.forms import take_files
from hub.organisations.service import require_verified
from hub.organisations.texts import Digest
from hub.vouchers.blueprint import blueprint
from hub.web import Query, context, current_actor


class DocumentPath(Query):
    """One document, by its artefact's digest."""

    digest: Digest


class KeptDocument(TypedDict):
    """A document that is kept, by its artefact's digest, with the name that it came under."""

    digest: str
    name: str


@blueprint.post("/papers")
def keep_document() -> tuple[KeptDocument, int]:
    """Keep a document: multipart file 'paper'; the same bytes again give the same digest (verified firms, operator)."""
    actor = current_actor(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    if actor.role is not Role.OPERATOR:
        with context().sessions.read() as session:
            require_verified(session, actor.organisation_id)
    [file] = take_files("paper", least=1, most=1)
    kept = keep_evidence(context().store, file)
    return {"digest": kept.digest, "name": kept.name}, 201


@blueprint.get("/papers/<digest>")
def download_document(path: DocumentPath) -> Response:
    """Return a document, for those who decide on what names it (operator, auditor)."""
    current_actor(*READERS)
    store = context().store
    found = find_document(store, path.digest)
    content = io.BytesIO(read_evidence(store, found.digest))
    name = f"{found.digest[:16]}{PurePath(found.name).suffix}"
    return send_file(content, mimetype="application/octet-stream", as_attachment=True, download_name=name)
