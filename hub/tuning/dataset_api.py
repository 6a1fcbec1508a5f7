"""HTTP of what joins data sets with bases and runs: token previews and deletion.

It leaves data sets alone to `hub.datasets.api`, and tokenising to the worker.
"""

import json
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.service import find_version, name_of
from hub.datasets.deletion import delete_dataset
from hub.datasets.previewing import locate_preview
from hub.datasets.previews import PreviewBase, list_previews, request_preview
from hub.datasets.removals import forget_removal
from hub.datasets.tables import DatasetPreview, DatasetVersion, PreviewState
from hub.datasets.versions import find_version as find_dataset_version
from hub.tuning.dataset_readers import READERS
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("tuning_datasets", __name__, url_prefix="/api/v1/datasets")


class DatasetPath(Query):
    """One data set."""

    dataset_id: str


class PreviewBody(Body):
    """The base whose tokenizer and chat template are used, by public name or version id."""

    base: str = Field(min_length=1, max_length=200)
    version: int | None = None


def open_preview(session: Session, actor: Actor, dataset_id: str, base_name: str, number: int | None) -> DatasetPreview:
    """Queue the preview of a version with a base that the actor may see. Raises: NotFoundError."""
    version = find_dataset_version(session, actor, dataset_id, number)
    base = find_version(session, actor, base_name)
    asked = PreviewBase(
        base.id,
        name_of(session, base),
        base.artifact_digest,
        base.weights_digest,
        base.tokenizer_digest,
        base.template_digest,
    )
    return request_preview(session, actor, version, asked, now=context().clock())


@blueprint.post("/<dataset_id>/previews")
def post_preview(path: DatasetPath, body: PreviewBody) -> tuple[dict[str, Any], int]:
    """Ask how a base reads the data set's rows."""
    actor = current_actor()
    with context().sessions.write() as session:
        return _present(open_preview(session, actor, path.dataset_id, body.base, body.version)), 202


@blueprint.get("/<dataset_id>/previews")
def get_previews(path: DatasetPath) -> dict[str, Any]:
    """Return the previews of the newest version with the tokens of a few rows, for their owner alone."""
    actor = current_actor()
    with context().sessions.read() as session:
        version = find_dataset_version(session, actor, path.dataset_id, None)
        previews = list_previews(session, version)
        return {"previews": [_present(one) | {"samples": read_samples(version, one)} for one in previews]}


@blueprint.delete("/<dataset_id>")
def delete(path: DatasetPath) -> dict[str, Any]:
    """Delete the files and return the receipt; refused while a run needs them."""
    actor = current_actor()
    with context().sessions.write() as session:
        dataset = delete_dataset(
            session,
            actor,
            path.dataset_id,
            readers=READERS,
            home=context().settings.home,
            now=context().clock(),
        )
        answer = {"id": dataset.id, "receipt": dataset.receipt}
    forget_removal(context().settings.home, dataset.id)
    return answer


def read_samples(version: DatasetVersion, preview: DatasetPreview) -> list[dict[str, Any]]:
    """Return rows as tokens from the file of a preview that is ready."""
    if preview.state is not PreviewState.READY:
        return []
    path = locate_preview(context().settings.home, version, preview)
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["samples"]
    return found


def _present(preview: DatasetPreview) -> dict[str, Any]:
    return {
        "id": preview.id,
        "base": preview.base_name,
        "state": preview.state,
        "figures": preview.figures,
        "reason_code": preview.reason_code,
        "message": preview.message,
    }
