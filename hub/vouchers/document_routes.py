"""HTTP of documents: keep one, so that an application or a month of a grant can name it by its digest.

It leaves which documents are allowed to `hub.filings.evidence` and what they prove to applications and papers.
"""

from typing_extensions import TypedDict

from hub.actor import Role
from hub.filings.evidence import keep_evidence
from hub.filings.forms import take_files
from hub.organisations.service import require_verified
from hub.vouchers.blueprint import blueprint
from hub.web import context, current_actor


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
