"""HTTP of data sets: upload, list, report, acknowledge, delete, and the sample to download.

It leaves checking to the worker; an upload answers 202 with a data set that is `checking`.
"""

from pathlib import Path
from typing import Any, BinaryIO, cast

from flask import Response, request, send_file
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.file import FileStorage
from pydantic import ConfigDict

from finetune.spec import SourceFormat
from hub.datasets import rules, service
from hub.datasets.files import store_upload
from hub.datasets.tables import Dataset, DatasetVersion
from hub.errors import NotFoundError
from hub.web import Query, context, current_actor

blueprint = APIBlueprint("datasets", __name__, url_prefix="/api/v1/datasets")


class UploadForm(Query):
    """Multipart fields of an upload; `mapping` is JSON text of column name to role.

    The texts are read from the raw form: flask-openapi3 would turn a data set named 2026 into a number.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    file: FileStorage
    name: Any = ""
    mapping: Any = ""


class DatasetPath(Query):
    """One data set."""

    dataset_id: str


class SampleQuery(Query):
    """Format of the sample."""

    format: SourceFormat = SourceFormat.JSONL


def present_dataset(dataset: Dataset, version: DatasetVersion, *, full: bool) -> dict[str, Any]:
    """Return a data set as JSON values; the report only when `full`."""
    answer: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "created_at": dataset.created_at.isoformat(),
        "version": {
            "id": version.id,
            "number": version.number,
            "state": version.state,
            "format": version.format,
            "file_name": version.file_name,
            "size_bytes": version.size_bytes,
            "source_digest": version.source_digest,
            "train_digest": version.train_digest,
            "valid_digest": version.valid_digest,
            "train_rows": version.train_rows,
            "valid_rows": version.valid_rows,
            "reason_code": version.reason_code,
            "checked_at": None if version.checked_at is None else version.checked_at.isoformat(),
            "acknowledged_at": None if version.acknowledged_at is None else version.acknowledged_at.isoformat(),
        },
        "receipt": dataset.receipt,
    }
    if full:
        answer["version"]["mapping"] = version.mapping
        answer["version"]["report"] = version.report
    return answer


@blueprint.post("")
def post_dataset(form: UploadForm) -> tuple[dict[str, Any], int]:
    """Take an upload, store it by its digest and queue its check."""
    actor = current_actor()
    file_name = form.file.filename or ""
    source_format = rules.read_format(file_name)
    mapping = rules.read_mapping(request.form.get("mapping"))
    name = rules.read_name(request.form.get("name") or Path(file_name).stem)
    home = context().settings.home
    stored = store_upload(home, actor.organisation_id, cast(BinaryIO, form.file.stream), source_format)
    with context().sessions.write() as session:
        dataset, version = service.add_dataset(
            session,
            actor,
            name=name,
            stored=stored,
            source_format=source_format,
            file_name=file_name,
            mapping=mapping,
            now=context().clock(),
        )
        return present_dataset(dataset, version, full=True), 202


@blueprint.get("")
def get_datasets() -> dict[str, Any]:
    """Return the organisation's data sets, newest first, without reports."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_datasets(session, actor)
        return {"datasets": [present_dataset(dataset, version, full=False) for dataset, version in found]}


@blueprint.get("/sample")
def get_sample(query: SampleQuery) -> Response:
    """Return the sample data set as a file."""
    path = context().settings.home / "samples" / f"sample.{query.format}"
    if not path.is_file():
        raise NotFoundError(
            f"This installation has no sample in format {query.format}. Ask its operator to run the demo set-up.",
            f"本系统没有 {query.format} 格式的样例，请联系运营方。",
            field="format",
        )
    return send_file(path, as_attachment=True, download_name=path.name)


@blueprint.get("/<dataset_id>")
def get_dataset(path: DatasetPath) -> dict[str, Any]:
    """Return one data set with its check report."""
    actor = current_actor()
    with context().sessions.read() as session:
        dataset, version = service.find_dataset(session, actor, path.dataset_id)
        return present_dataset(dataset, version, full=True)


@blueprint.post("/<dataset_id>/acknowledge")
def post_acknowledgement(path: DatasetPath) -> dict[str, Any]:
    """Accept the report's warnings."""
    actor = current_actor()
    with context().sessions.write() as session:
        service.acknowledge_warnings(session, actor, path.dataset_id, now=context().clock())
        return present_dataset(*service.find_dataset(session, actor, path.dataset_id), full=True)


@blueprint.delete("/<dataset_id>")
def delete_dataset(path: DatasetPath) -> dict[str, Any]:
    """Delete the files and return the receipt."""
    actor = current_actor()
    with context().sessions.write() as session:
        dataset = service.delete_dataset(
            session, actor, path.dataset_id, home=context().settings.home, now=context().clock()
        )
        return {"id": dataset.id, "receipt": dataset.receipt}
