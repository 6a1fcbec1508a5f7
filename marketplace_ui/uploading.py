"""Takes an adapter that was sent as a form: fields, files, the gate, then a version or a report of what failed.

It leaves every check to `registry` and the rows to `hub.catalogue`.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue import service
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import TUNABLE_KINDS, Model, ModelVersion, Task, VersionState
from hub.catalogue.upload_routes import MAX_FILES, FormFile
from hub.catalogue.uploads import Incoming
from hub.catalogue.versions import visible_to
from hub.filings.forms import take_files
from hub.web import context
from marketplace_ui.forms import Form


@dataclass(frozen=True)
class Received:
    """What became of an upload: its id, and the report where the gate ran."""

    upload_id: str = ""
    report: dict[str, Any] | None = None


def list_bases(session: Session, actor: Actor) -> list[tuple[str, str]]:
    """Return the versions that an adapter may be for, as (id, public name), newest first."""
    query = (
        select(Model.name, ModelVersion.number, ModelVersion.id)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(visible_to(actor), ModelVersion.kind.in_(TUNABLE_KINDS), ModelVersion.state != VersionState.QUARANTINED)
        .order_by(ModelVersion.id.desc())
        .limit(200)
    )
    return [(version_id, f"{name}@{number}") for name, number, version_id in session.execute(query)]


def receive_adapter(actor: Actor, form: Form) -> Received:
    """Check what was sent and register it; refusals stand in the form, the gate's findings in the report."""
    texts, name = _read_texts(form), form.text("name", required=True, most=120)
    if not form.value("base"):
        form.refuse("base", "请选择训练时所用的基座。", "Choose the base it was trained on.")
    files: list[Incoming] = []
    with form.catching("files"):
        sent = [file for file in take_files("files", least=1, most=MAX_FILES) if file.filename]
        files = [FormFile(file) for file in sent]
        if not files:
            form.refuse("files", "请选择适配器文件。", "Choose the adapter's files.")
    if not form.ok:
        return Received()
    now, target = context().clock(), None
    with form.catching(), context().sessions.write() as session:
        base = service.find_upload_base(session, actor, form.value("base"), None)
        upload = service.open_upload(session, actor, base, model_name=name, now=now)
        target = (upload.id, base.artifact_digest)
    return Received() if target is None else _check(actor, form, target, files, texts)


def _check(actor: Actor, form: Form, target: tuple[str, str], files: list[Incoming], texts: ModelTexts) -> Received:
    """Run the gate on an opened upload (its id, the base's digest) and close it, whatever happens."""
    upload_id, base_digest = target
    report: dict[str, Any] | None = None
    closed = False
    try:
        with form.catching("files"):
            checked = service.check_files(context().store, base_digest, files, context().settings.home / "uploads")
            report = checked.report.as_dict()
            if checked.artifact is None:
                form.refuse(
                    "files",
                    "未通过检查，文件没有保留；请按下面的说明修改后重新选择文件。",
                    "Refused, and no file was kept. Mend what is listed below and choose the files again.",
                )
            else:
                with context().sessions.write() as session:
                    service.accept_upload(session, actor, upload_id, checked, texts=texts, now=context().clock())
                closed = True
    finally:
        if not closed:
            with context().sessions.write() as session:
                service.refuse_upload(session, actor, upload_id, report, now=context().clock())
    return Received(upload_id, report)


def _read_texts(form: Form) -> ModelTexts:
    task = form.choice("task", Task) if form.value("task") else Task.TEXT_GENERATION
    return ModelTexts(
        title_zh=form.text("title_zh"),
        title_en=form.text("title_en"),
        summary_zh=form.text("summary_zh", most=2_000),
        summary_en=form.text("summary_en", most=2_000),
        card_markdown=form.text("card_markdown", most=100_000),
        scenario=form.optional("scenario"),
        licence=form.optional("licence", most=64),
        task=task or Task.TEXT_GENERATION,
    )
