"""HTTP of the audit trail: signed checkpoints and proofs, for the authority's auditor and the operator.

It leaves exports to the command line, which writes them where the disk is.
"""

from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel
from typing_extensions import TypedDict

from hub.audit import service
from hub.audit.signing import AuditKey, verifier_key
from hub.audit.tables import AuditCheckpoint
from hub.web import context, current_actor

blueprint = APIBlueprint("audit", __name__, url_prefix="/api/v1/audit")


class TransferPath(BaseModel):
    """A transfer's id."""

    transfer_id: str


class CheckpointView(TypedDict):
    """A checkpoint: the tree's size and root, and the note that signs them."""

    size: int
    root: str
    note: str
    made_at: str


class Checkpoints(TypedDict):
    """Signed checkpoints with the key they are signed by."""

    public_key: str
    items: list[CheckpointView]


class ProofView(TypedDict):
    """That a transfer is in the tree of a signed checkpoint: check it with RFC 9162 §2.1.3.2."""

    transfer_id: str
    index: int
    leaf_hash: str
    path: list[str]
    checkpoint: CheckpointView


@blueprint.get("/checkpoints")
def list_checkpoints() -> Checkpoints:
    """Return signed checkpoints, newest first, with the key they are signed by."""
    with context().sessions.read() as session:
        rows = service.list_signed(session, current_actor())
        public = AuditKey(context().secrets["audit_key"]).public
        return {"public_key": verifier_key(public), "items": [_present(row) for row in rows]}


@blueprint.get("/transfers/<transfer_id>/proof")
def prove_transfer(path: TransferPath) -> ProofView:
    """Return the inclusion proof of a transfer under the newest checkpoint."""
    with context().sessions.read() as session:
        proof = service.prove_transfer(session, current_actor(), path.transfer_id)
        return {
            "transfer_id": proof.transfer_id,
            "index": proof.index,
            "leaf_hash": proof.leaf_hash,
            "path": proof.path,
            "checkpoint": _present(proof.checkpoint),
        }


def _present(row: AuditCheckpoint) -> CheckpointView:
    return {"size": row.size, "root": row.root, "note": row.note, "made_at": row.made_at.isoformat()}
