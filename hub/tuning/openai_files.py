"""Data sets as OpenAI files: create, list, retrieve, content, delete. Source: openai-python `types/file_object.py`.

It leaves checking to the worker and the data sets' own pages to `hub.datasets`.
"""

from pathlib import Path
from typing import Any, Literal, cast

from flask import Response, request, send_file
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.datasets import rules, service
from hub.datasets.deletion import delete_dataset
from hub.datasets.files import locate_source, store_upload
from hub.datasets.removals import forget_removal
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.errors import InvalidValueError, NotFoundError
from hub.tuning.awaiting import explain_data
from hub.tuning.dataset_readers import READERS
from hub.tuning.openai_caller import find_caller
from hub.tuning.openai_events import cut_page, write_metrics
from hub.tuning.openai_ids import read_file, show_file, show_result_file
from hub.tuning.service import MAX_LISTED, find_run, list_runs
from hub.tuning.states import DELIVERED
from hub.tuning.tables import Run
from hub.web import Query, context

blueprint = APIBlueprint("openai_files", __name__, url_prefix="/v1/files")
PURPOSE, RESULT_PURPOSE = "fine-tune", "fine-tune-results"
_STATUS = {
    DatasetState.CHECKING: "uploaded",
    DatasetState.READY: "processed",
    DatasetState.WARNED: "processed",
    DatasetState.BLOCKED: "error",
    DatasetState.FAILED: "error",
}


class FilePath(Query):
    """One file."""

    file_id: str


class FileQuery(Query):
    """A page of files."""

    after: str | None = None
    limit: int = Field(10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None


@blueprint.post("")
def post_file() -> dict[str, Any]:
    """Take an upload with purpose `fine-tune` and queue its check."""
    with context().sessions.read() as session:
        actor = find_caller(session).actor
    upload, name = request.files.get("file"), _read_purpose()
    if upload is None or name is None:
        raise InvalidValueError("The form has no part 'file'; send one.", "缺少 file 部分，请上传文件。", field="file")
    file_name = upload.filename or "upload.jsonl"
    source_format = rules.read_format(file_name)
    actor.require(*service.OWNERS)
    home = context().settings.home
    stored = store_upload(home, actor.organisation_id, cast(Any, upload.stream), source_format)
    with context().sessions.write() as session:
        dataset, version = service.add_dataset(
            session,
            actor,
            name=rules.read_name(Path(file_name).stem[: rules.MAX_NAME_CHARS]),
            stored=stored,
            source_format=source_format,
            file_name=file_name,
            mapping={},
            now=context().clock(),
        )
        return present_file(dataset, version)


@blueprint.get("")
def get_files(query: FileQuery) -> dict[str, Any]:
    """Return the organisation's files: data sets and the metrics of its delivered runs."""
    with context().sessions.read() as session:
        actor = find_caller(session).actor
        files = [present_file(dataset, version) for dataset, version in service.list_datasets(session, actor)]
        files += [present_result(run) for run in list_runs(session, actor, limit=MAX_LISTED) if run.state in DELIVERED]
    found = [item for item in files if query.purpose in (None, item["purpose"])]
    found.sort(key=lambda item: (item["created_at"], item["id"]), reverse=query.order == "desc")
    return cut_page(found, after=query.after, limit=query.limit)


@blueprint.get("/<file_id>")
def get_file(path: FilePath) -> dict[str, Any]:
    """Return one file."""
    with context().sessions.read() as session:
        found = _find(session, find_caller(session).actor, path.file_id)
        return present_result(found) if isinstance(found, Run) else present_file(*found)


@blueprint.get("/<file_id>/content")
def get_content(path: FilePath) -> Response:
    """Return a file's bytes as they were uploaded, or the metrics of a run as CSV."""
    home = context().settings.home
    with context().sessions.read() as session:
        found = _find(session, find_caller(session).actor, path.file_id)
    if isinstance(found, Run):
        return Response(write_metrics(found, home), content_type="text/csv; charset=utf-8")
    dataset, version = found
    source = locate_source(home, dataset.organisation_id, version.source_digest, version.format)
    return send_file(source, mimetype="application/octet-stream", as_attachment=True, download_name=version.file_name)


@blueprint.delete("/<file_id>")
def delete_file(path: FilePath) -> dict[str, Any]:
    """Delete an uploaded file; the receipt is kept with the data set."""
    with context().sessions.write() as session:
        actor = find_caller(session).actor
        found = _find(session, actor, path.file_id)
        if isinstance(found, Run):
            raise InvalidValueError(
                "The metrics of a job are kept with it and cannot be deleted. Delete uploaded files only.",
                "任务的指标文件随任务保存，不能删除。",
                field="file_id",
            )
        home, now = context().settings.home, context().clock()
        delete_dataset(session, actor, found[0].id, readers=READERS, home=home, now=now)
    forget_removal(home, found[0].id)
    return {"id": path.file_id, "object": "file", "deleted": True}


def present_file(dataset: Dataset, version: DatasetVersion) -> dict[str, Any]:
    """Return a data set as a `file`."""
    status = _STATUS.get(version.state, "error")
    return {
        "id": show_file(dataset.id),
        "object": "file",
        "bytes": version.size_bytes,
        "created_at": int(dataset.created_at.timestamp()),
        "filename": version.file_name,
        "purpose": PURPOSE,
        "status": status,
        "status_details": explain_data(version.state, version.report) if status == "error" else None,
        "expires_at": None,
    }


def present_result(run: Run) -> dict[str, Any]:
    """Return the metrics of a run as a `file`."""
    finished_at = run.finished_at or run.created_at
    return {
        "id": show_result_file(run.id),
        "object": "file",
        "bytes": len(write_metrics(run, context().settings.home)),
        "created_at": int(finished_at.timestamp()),
        "filename": "step_metrics.csv",
        "purpose": RESULT_PURPOSE,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }


def _find(session: Session, actor: Actor, file_id: str) -> tuple[Dataset, DatasetVersion] | Run:
    dataset_id, run_id = read_file(file_id)
    try:
        dataset, version = service.find_dataset(session, actor, dataset_id)
    except NotFoundError:
        dataset, version = None, None
    if dataset is not None and version is not None and dataset.deleted_at is None:
        return dataset, version
    try:
        run = find_run(session, actor, run_id)
    except NotFoundError:
        run = None
    if run is None or run.state not in DELIVERED:
        raise NotFoundError.of("file", file_id[:80])
    return run


def _read_purpose() -> str:
    purpose = request.form.get("purpose", "")
    if purpose != PURPOSE:
        raise InvalidValueError(
            f"purpose is '{purpose[:40]}'; this hub takes '{PURPOSE}' only.",
            f"purpose 为“{purpose[:40]}”，仅支持“{PURPOSE}”。",
            field="purpose",
        )
    unknown = sorted(set(request.form) - {"purpose"})
    if unknown:
        raise InvalidValueError(
            f"{unknown[0]} is not offered here: files stay until they are deleted. Leave it out.",
            f"不支持参数 {unknown[0]}，文件会保留至删除。",
            field=unknown[0].partition("[")[0],
        )
    return purpose
