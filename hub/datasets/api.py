"""HTTP of data sets: upload, list, report, findings by row, corrections, registration, and the sample to download.

It leaves checking to the worker: an upload answers 202 with a data set that is `checking`. What needs a base or
knows of runs (token previews, deletion) is `hub.tuning.dataset_api`.
"""

import io
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from flask import Response, request, send_file
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.file import FileStorage
from pydantic import ConfigDict, Field

from finetune.spec import SourceFormat
from hub.datasets import rules, service, versions
from hub.datasets.files import store_upload
from hub.datasets.findings import MOST_OF_A_PAGE, find_annotated, read_findings
from hub.datasets.samples import write_sample
from hub.datasets.tables import Dataset, DatasetVersion
from hub.errors import InvalidValueError
from hub.organisations.texts import Line
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("datasets", __name__, url_prefix="/api/v1/datasets")


class UploadForm(Query):
    """Multipart fields of an upload; `mapping` is JSON text of column name to role.

    All are read from the request itself: flask-openapi3 would turn a data set named 2026 into a number, and takes a
    text for the file.
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


class VersionQuery(Query):
    """Number of a version; the newest without one."""

    version: int | None = None


class FindingsQuery(VersionQuery):
    """Which findings, and from where in the file on."""

    code: str | None = Field(None, pattern=r"^[a-z0-9_]{1,60}$")
    severity: Literal["E", "W", "F", "I"] | None = None
    cursor: int = Field(0, ge=0, le=2**62)
    limit: int = Field(100, ge=1, le=MOST_OF_A_PAGE)


class CorrectionBody(Body):
    """Other columns, or corrections by code of the report; what is left out stays as it was."""

    mapping: dict[str, str] | None = None
    fixes: dict[str, str] | None = None


class ValidationBody(Body):
    """Another data set of the same format, which is held out whole."""

    validation_dataset_id: str


class RightsBody(Body):
    """A registration of data rights as its certificate says it."""

    number: Line = Field(min_length=1, max_length=80)
    owner: Line = Field(min_length=1, max_length=120)
    body: Line | None = Field(None, max_length=120)
    licence: Line | None = Field(None, max_length=80)


def present_dataset(dataset: Dataset, version: DatasetVersion, *, full: bool) -> dict[str, Any]:
    """Return a data set as JSON values; the report only when `full`."""
    answer: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "created_at": dataset.created_at.isoformat(),
        "version": present_version(version),
        "receipt": dataset.receipt,
        "registration": None
        if dataset.registered_at is None
        else {
            "number": dataset.registration_number,
            "body": dataset.registration_body,
            "licence": dataset.licence,
            "owner": dataset.rights_owner,
            "registered_at": dataset.registered_at.isoformat(),
        },
    }
    if full:
        answer["version"]["report"] = version.report
    return answer


def present_version(version: DatasetVersion) -> dict[str, Any]:
    """Return a version as JSON values, without its report."""
    return {
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
        "mapping": version.mapping,
        "fixes": version.fixes,
        "held_version_id": version.held_version_id,
        "reason_code": version.reason_code,
        "created_at": version.created_at.isoformat(),
        "checked_at": None if version.checked_at is None else version.checked_at.isoformat(),
        "acknowledged_at": None if version.acknowledged_at is None else version.acknowledged_at.isoformat(),
    }


@blueprint.post("")
def post_dataset(form: UploadForm) -> tuple[dict[str, Any], int]:
    """Take an upload, store it by its digest and queue its check."""
    actor = current_actor()
    sent = request.files.get("file")
    if sent is None:
        raise InvalidValueError(
            "The field 'file' is text; send the file itself as a part with a file name.",
            "字段 file 是文字，请以文件形式上传。",
            field="file",
        )
    file_name = sent.filename or ""
    source_format = rules.read_format(file_name)
    mapping = rules.read_mapping(request.form.get("mapping"))
    name = rules.read_name(request.form.get("name") or Path(file_name).stem)
    actor.require(*service.OWNERS)
    home = context().settings.home
    stored = store_upload(home, actor.organisation_id, cast(BinaryIO, sent.stream), source_format)
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
    found = path if path.is_file() else io.BytesIO(write_sample(query.format))
    return send_file(found, as_attachment=True, download_name=path.name, mimetype="application/octet-stream")


@blueprint.get("/<dataset_id>")
def get_dataset(path: DatasetPath, query: VersionQuery) -> dict[str, Any]:
    """Return one data set with the check report of its newest or another version."""
    actor = current_actor()
    with context().sessions.read() as session:
        dataset, _ = service.find_dataset(session, actor, path.dataset_id)
        version = versions.find_version(session, actor, path.dataset_id, query.version)
        return present_dataset(dataset, version, full=True)


@blueprint.post("/<dataset_id>/acknowledge")
def post_acknowledgement(path: DatasetPath, query: VersionQuery) -> dict[str, Any]:
    """Accept the report's warnings."""
    actor = current_actor()
    with context().sessions.write() as session:
        dataset, _ = service.find_dataset(session, actor, path.dataset_id)
        version = versions.find_version(session, actor, path.dataset_id, query.version)
        service.acknowledge_version(session, actor, version, now=context().clock())
        return present_dataset(dataset, version, full=True)


@blueprint.get("/<dataset_id>/versions")
def get_versions(path: DatasetPath) -> dict[str, Any]:
    """Return all versions of a data set, newest first, without reports."""
    actor = current_actor()
    with context().sessions.read() as session:
        return {"versions": [present_version(one) for one in versions.list_versions(session, actor, path.dataset_id)]}


@blueprint.post("/<dataset_id>/versions")
def post_version(path: DatasetPath, query: VersionQuery, body: CorrectionBody) -> tuple[dict[str, Any], int]:
    """Read the upload again with other columns or corrections, as the next version; queue its check."""
    actor = current_actor()
    mapping = None if body.mapping is None else rules.read_roles(body.mapping)
    now = context().clock()
    with context().sessions.write() as session:
        dataset, _ = service.find_dataset(session, actor, path.dataset_id)
        version = versions.correct_dataset(
            session, actor, dataset.id, mapping=mapping, fixes=body.fixes, number=query.version, now=now
        )
        return present_dataset(dataset, version, full=True), 202


@blueprint.post("/<dataset_id>/validation")
def post_validation(path: DatasetPath, body: ValidationBody) -> tuple[dict[str, Any], int]:
    """Hold another data set out whole instead of a part of this one, as a version; queue the check of both.

    A run takes that version by its id. The report names training rows that repeat a held-out one.
    """
    actor = current_actor()
    with context().sessions.write() as session:
        dataset, _ = service.find_dataset(session, actor, path.dataset_id)
        version = versions.hold_out_file(
            session,
            actor,
            dataset.id,
            body.validation_dataset_id,
            now=context().clock(),
            field="validation_dataset_id",
        )
        return present_dataset(dataset, version, full=True), 202


@blueprint.get("/<dataset_id>/findings")
def get_findings(path: DatasetPath, query: FindingsQuery) -> dict[str, Any]:
    """Return what the check found row by row, a page at a time."""
    actor = current_actor()
    with context().sessions.read() as session:
        version = versions.find_version(session, actor, path.dataset_id, query.version)
    page = read_findings(
        context().settings.home,
        version,
        code=query.code,
        severity=query.severity,
        cursor=query.cursor,
        limit=query.limit,
    )
    return {"version": version.number, "findings": page.findings, "cursor": page.cursor}


@blueprint.get("/<dataset_id>/annotated")
def get_annotated(path: DatasetPath, query: VersionQuery) -> Response:
    """Return the upload with a column of findings, in its own format."""
    actor = current_actor()
    with context().sessions.read() as session:
        version = versions.find_version(session, actor, path.dataset_id, query.version)
    found = find_annotated(context().settings.home, version)
    name = f"{Path(version.file_name).stem}-checked{found.suffix}"
    return send_file(found, as_attachment=True, download_name=name, mimetype="application/octet-stream", max_age=0)


@blueprint.post("/<dataset_id>/registration")
def post_registration(path: DatasetPath, body: RightsBody) -> dict[str, Any]:
    """Note the registration of the data set's rights."""
    actor = current_actor()
    rights = versions.Rights(body.number, body.body, body.licence, body.owner)
    with context().sessions.write() as session:
        versions.register_rights(session, actor, path.dataset_id, rights, now=context().clock())
        return present_dataset(*service.find_dataset(session, actor, path.dataset_id), full=False)
