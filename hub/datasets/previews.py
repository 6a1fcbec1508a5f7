"""Token previews: how one base reads the rows of one version, asked for by the owner, made by the trainer's check.

It leaves finding the base to its caller, since the catalogue is a room above, and tokens to a file of the owner's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.datasets.service import OWNERS, not_ready
from hub.datasets.tables import DatasetPreview, DatasetState, DatasetVersion, PreviewState
from hub.ids import new_id
from hub.jobs.service import enqueue_job

PREVIEW_KIND = "dataset.preview"
PREVIEW_NAME = "preview.json"
_MOST_FAILURES = 2


@dataclass(frozen=True)
class PreviewBase:
    """A base as its version in the catalogue says it; the trainer checks the digests before it uses the files."""

    version_id: str
    name: str
    artifact_digest: str
    weights_digest: str
    tokenizer_digest: str
    template_digest: str


def request_preview(
    session: Session, actor: Actor, version: DatasetVersion, base: PreviewBase, *, now: datetime
) -> DatasetPreview:
    """Queue the preview of a checked version with a base; asked for again it is the same one, unless it failed.

    Raises:
        DatasetNotReadyError: not checked, or with errors.
    """
    actor.require(*OWNERS)
    if version.state not in (DatasetState.READY, DatasetState.WARNED):
        raise not_ready(version)
    statement = select(DatasetPreview).where(
        DatasetPreview.organisation_id == version.organisation_id,
        DatasetPreview.version_id == version.id,
        DatasetPreview.base_version_id == base.version_id,
    )
    preview = session.scalar(statement)
    if preview is None:
        preview = DatasetPreview(
            id=new_id("dsp"),
            organisation_id=version.organisation_id,
            version_id=version.id,
            base_version_id=base.version_id,
            base_name=base.name,
            artifact_digest=base.artifact_digest,
            weights_digest=base.weights_digest,
            tokenizer_digest=base.tokenizer_digest,
            template_digest=base.template_digest,
            state=PreviewState.WORKING,
            created_at=now,
        )
        session.add(preview)
    elif preview.state is not PreviewState.FAILED:
        return preview
    preview.state, preview.reason_code, preview.message, preview.finished_at = PreviewState.WORKING, None, None, None
    session.flush()
    enqueue_job(
        session,
        kind=PREVIEW_KIND,
        subject=preview.id,
        organisation_id=version.organisation_id,
        now=now,
        max_failures=_MOST_FAILURES,
    )
    return preview


def list_previews(session: Session, version: DatasetVersion) -> Sequence[DatasetPreview]:
    """Return the previews of a version, newest first."""
    statement = select(DatasetPreview).where(
        DatasetPreview.organisation_id == version.organisation_id, DatasetPreview.version_id == version.id
    )
    return session.scalars(statement.order_by(DatasetPreview.created_at.desc(), DatasetPreview.id.desc())).all()
