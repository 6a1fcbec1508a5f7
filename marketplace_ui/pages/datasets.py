"""Data sets: the list, upload, and samples to download.

It leaves one data set to `marketplace_ui.pages.dataset` and the rules of rows to the trainer's check.
"""

from pathlib import Path
from typing import BinaryIO, cast

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from finetune.spec import SourceFormat
from hub.actor import Actor
from hub.datasets import rules, service
from hub.datasets.files import store_upload
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.journey_words import word_of, word_tone

blueprint = Blueprint("datasets", __name__)
blueprint.add_app_template_global(word_of, "word")
blueprint.add_app_template_global(word_tone, "word_tone")


@blueprint.get("/datasets")
def list_datasets() -> str:
    return _show_list(require_owner(), Form())


@blueprint.post("/datasets")
def upload_dataset() -> Response | tuple[str, int]:
    actor, form = require_owner(), Form.of_request()
    dataset_id = ""
    with form.catching("file", "name"):
        dataset_id = _take_upload(actor, form)
    if not form.ok:
        return _show_list(actor, form), 422
    return redirect(f"/datasets/{dataset_id}?done=uploaded")


def require_owner() -> Actor:
    """Return the person if they may bring data. Raises: ForbiddenError."""
    actor = current_actor()
    actor.require(*service.OWNERS)
    return actor


def _show_list(actor: Actor, form: Form) -> str:
    with context().sessions.read() as session:
        rows = service.list_datasets(session, actor)
        limit_mib = rules.MAX_UPLOAD_BYTES // 2**20
        return render_template(
            "datasets/list.html", form=form, rows=rows, samples=list(SourceFormat), limit_mib=limit_mib
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
