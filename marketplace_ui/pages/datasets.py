"""Data sets: upload, what the check found line by line, columns to correct, acknowledge, delete with a receipt.

It leaves the rules of rows to the trainer's check and states to `hub.datasets`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from finetune.spec import ColumnRole, SourceFormat
from hub.actor import Actor, Role
from hub.datasets import rules, service
from hub.datasets.files import StoredFile, locate_source, store_upload
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.tuning.tables import Run
from hub.web import context, current_actor
from marketplace_ui.columns import read_columns
from marketplace_ui.forms import Form
from marketplace_ui.journey_words import word_of, word_tone
from marketplace_ui.layout import read_notice

blueprint = Blueprint("datasets", __name__)
blueprint.add_app_template_global(word_of, "word")
blueprint.add_app_template_global(word_tone, "word_tone")
SEVERITIES = ("E", "W", "F", "I")
SAMPLE_ROWS = 3
NOTICES = {
    "uploaded": ("已上传，正在逐行检查。", "Uploaded; it is being checked line by line."),
    "acknowledged": ("已确认提示，数据集可以使用。", "The warnings are acknowledged; the data set can be used."),
    "mapped": ("已按新的列用途重新检查。", "It is being checked again with the columns you named."),
    "deleted": ("文件已删除，回执如下。", "The files are deleted; this is the receipt."),
}


@dataclass(frozen=True)
class IssueGroup:
    """Findings of one severity: E, W, F or I."""

    severity: str
    issues: list[Mapping[str, Any]]


@blueprint.get("/datasets")
def list_datasets() -> str:
    return _show_list(_require_user(), Form())


@blueprint.post("/datasets")
def upload_dataset() -> Response | tuple[str, int]:
    actor, form = _require_user(), Form.of_request()
    dataset_id = ""
    with form.catching("file", "name"):
        dataset_id = _take_upload(actor, form)
    if not form.ok:
        return _show_list(actor, form), 422
    return redirect(f"/datasets/{dataset_id}?done=uploaded")


@blueprint.get("/datasets/<dataset_id>")
def show_dataset(dataset_id: str) -> str:
    return _show(current_actor(), dataset_id, None)


@blueprint.post("/datasets/<dataset_id>/columns")
def map_columns(dataset_id: str) -> Response | tuple[str, int]:
    """Check the same file again with columns that a person named, as a new data set."""
    actor, form = _require_user(), Form.of_request()
    with context().sessions.read() as session:
        dataset, version = service.find_dataset(session, actor, dataset_id)
    mapping = _read_mapping(form, version)
    if mapping is None:
        return _show(actor, dataset_id, form), 422
    fresh_id = _check_again(actor, dataset, version, mapping)
    return redirect(f"/datasets/{fresh_id}?done=mapped")


@blueprint.post("/datasets/<dataset_id>/acknowledge")
def acknowledge(dataset_id: str) -> Response | tuple[str, int]:
    actor, form = _require_user(), Form()
    with form.catching(), context().sessions.write() as session:
        service.acknowledge_warnings(session, actor, dataset_id, now=context().clock())
    return redirect(f"/datasets/{dataset_id}?done=acknowledged") if form.ok else (_show(actor, dataset_id, form), 409)


@blueprint.post("/datasets/<dataset_id>/delete")
def delete_dataset(dataset_id: str) -> Response:
    actor = _require_user()
    with context().sessions.write() as session:
        service.delete_dataset(session, actor, dataset_id, home=context().settings.home, now=context().clock())
    return redirect(f"/datasets/{dataset_id}?done=deleted")


def _require_user() -> Actor:
    actor = current_actor()
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    return actor


def _show_list(actor: Actor, form: Form) -> str:
    folder = context().settings.home / "samples"
    samples = [kind for kind in SourceFormat if (folder / f"sample.{kind}").is_file()]
    with context().sessions.read() as session:
        rows = service.list_datasets(session, actor)
        return render_template(
            "datasets/list.html", form=form, rows=rows, samples=samples, limit_mib=rules.MAX_UPLOAD_BYTES // 2**20
        )


def _show(actor: Actor, dataset_id: str, form: Form | None) -> str:
    with context().sessions.read() as session:
        dataset, version = service.find_dataset(session, actor, dataset_id)
        columns = _list_columns(version)
        return render_template(
            "datasets/dataset.html",
            dataset=dataset,
            version=version,
            groups=_group_issues(version.report),
            summary=(version.report or {}).get("summary", {}),
            samples=_read_samples(version),
            columns=columns,
            form=form or Form(_fill_mapping(columns, version)),
            asked=form is not None,
            runs=_list_runs(session, actor, version),
            notice=read_notice(NOTICES),
        )


def _take_upload(actor: Actor, form: Form) -> str:
    file = request.files.get("file")
    if file is None or not file.filename:
        form.refuse("file", "请选择要上传的文件。", "Choose a file to upload.")
        return ""
    source_format = rules.read_format(file.filename)
    name = rules.read_name(form.text("name", most=rules.MAX_NAME_CHARS) or Path(file.filename).stem)
    if not form.ok:
        return ""
    home = context().settings.home
    stored = store_upload(home, actor.organisation_id, cast(BinaryIO, file.stream), source_format)
    with context().sessions.write() as session:
        dataset, _ = service.add_dataset(
            session,
            actor,
            name=name,
            stored=stored,
            source_format=source_format,
            file_name=file.filename,
            mapping={},
            now=context().clock(),
        )
        return dataset.id


def _check_again(actor: Actor, dataset: Dataset, version: DatasetVersion, mapping: Mapping[str, ColumnRole]) -> str:
    now = context().clock()
    with context().sessions.write() as session:
        fresh, _ = service.add_dataset(
            session,
            actor,
            name=dataset.name,
            stored=StoredFile(version.source_digest, version.size_bytes),
            source_format=version.format,
            file_name=version.file_name,
            mapping=mapping,
            now=now,
        )
        if version.state is not DatasetState.READY:
            # A check that led nowhere is replaced; the file stays, because the new one holds the same digest.
            service.delete_dataset(session, actor, dataset.id, home=context().settings.home, now=now)
        return fresh.id


def _read_mapping(form: Form, version: DatasetVersion) -> dict[str, ColumnRole] | None:
    columns = _list_columns(version)
    chosen = {name: form.value(f"column-{index}") for index, name in enumerate(columns)}
    mapping = {name: ColumnRole(role) for name, role in chosen.items() if role in list(ColumnRole)}
    for role in (ColumnRole.PROMPT, ColumnRole.COMPLETION):
        count = list(mapping.values()).count(role)
        if count != 1:
            word = word_of("column", role)
            form.refuse(
                "",
                f"“{word}”须恰好指定一列，现为 {count} 列。",
                f"'{word}' must be exactly one column; now there are {count}.",
            )
    return mapping if form.ok else None


def _list_columns(version: DatasetVersion) -> list[str]:
    if version.state in (DatasetState.CHECKING, DatasetState.DELETED):
        return []
    home = context().settings.home
    path = locate_source(home, version.organisation_id, version.source_digest, version.format)
    return read_columns(path, version.format)


def _fill_mapping(columns: Iterable[str], version: DatasetVersion) -> dict[str, str]:
    known = version.mapping or (version.report or {}).get("summary", {}).get("mapping", {})
    return {f"column-{index}": known.get(name, "") for index, name in enumerate(columns)}


def _group_issues(report: Mapping[str, Any] | None) -> list[IssueGroup]:
    found = (report or {}).get("issues", [])
    # A file that the trainer would not read at all is reported with the long word.
    named = [{**issue, "severity": "E" if issue["severity"] == "error" else issue["severity"]} for issue in found]
    groups = [IssueGroup(letter, [one for one in named if one["severity"] == letter]) for letter in SEVERITIES]
    return [group for group in groups if group.issues]


def _read_samples(version: DatasetVersion) -> list[list[dict[str, str]]]:
    """Return the messages of the first checked rows, which only their owner ever sees."""
    if version.checked_folder is None or version.state is DatasetState.DELETED:
        return []
    path = service.locate_checked(context().settings.home, version) / "train.jsonl"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as stream:
        lines = [line for _, line in zip(range(SAMPLE_ROWS), stream, strict=False)]
    return [json.loads(line)["messages"] for line in lines]


def _list_runs(session: Session, actor: Actor, version: DatasetVersion) -> list[Run]:
    query = select(Run).where(Run.organisation_id == actor.organisation_id, Run.dataset_version_id == version.id)
    return list(session.scalars(query.order_by(Run.id.desc()).limit(20)))
