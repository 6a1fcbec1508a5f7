"""HTTP for bringing bytes in: import of a base folder, upload of an adapter, reports of uploads.

Slow work (checking, copying, hashing) happens between transactions, never inside one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.datastructures import FileStorage

from hub.actor import Actor, Role
from hub.catalogue import service
from hub.catalogue.blueprint import blueprint
from hub.catalogue.bodies import NewAdapter, NewBase, UploadPath
from hub.catalogue.uploads import Incoming, UploadRefusedError
from hub.catalogue.views import show_upload, show_version
from hub.filings.forms import read_form, save_file, take_files
from hub.web import context, current_actor

MAX_FILES = 8


@dataclass(frozen=True)
class FormFile:
    """One file of the form under its client's name."""

    file: FileStorage

    @property
    def name(self) -> str:
        return self.file.filename or ""

    def save(self, target: Path, *, max_bytes: int) -> None:
        save_file(self.file, target, max_bytes=max_bytes)


@blueprint.post("/bases/import", summary="Import a Hugging Face folder of the hub's machine (operator)")
def import_base(body: NewBase) -> tuple[dict[str, Any], int]:
    actor = current_actor()
    actor.require(Role.OPERATOR)
    prepared = service.prepare_base(context().store, Path(body.path))
    with context().sessions.write() as session:
        version = service.import_base(
            session,
            actor,
            name=body.name,
            prepared=prepared,
            texts=body.texts(),
            kind=body.kind,
            now=context().clock(),
        )
        shown = show_version(version, service.model_of(session, version).name)
    return {**shown, "report": prepared.report.as_dict()}, 201


@blueprint.post("/adapters", summary="Upload an adapter: multipart fields and 'files' (integrator, factory)")
def upload_adapter() -> tuple[dict[str, Any], int]:
    actor = current_actor()
    form = read_form(NewAdapter)
    files = [FormFile(file) for file in take_files("files", least=1, most=MAX_FILES)]
    now = context().clock()
    with context().sessions.write() as session:
        base = service.find_upload_base(session, actor, form.base, form.base_weights_digest)
        upload = service.open_upload(session, actor, base, model_name=form.name, now=now)
    with _closing(actor, upload.id):
        incoming: list[Incoming] = list(files)
        checked = service.check_files(
            context().store, base.artifact_digest, incoming, context().settings.home / "uploads"
        )
        if checked.artifact is None:
            raise service.explain_refusal(upload.id, checked.report)
        with context().sessions.write() as session:
            version = service.accept_upload(session, actor, upload.id, checked, texts=form.texts(), now=now)
            shown = show_version(version, service.model_of(session, version).name)
    return {**shown, "upload_id": upload.id, "report": checked.report.as_dict()}, 201


@blueprint.get("/uploads", summary="Own uploads with their reports; all for operators")
def list_uploads() -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        return {"uploads": [show_upload(row) for row in service.list_uploads(session, actor)]}


@blueprint.get("/uploads/<upload_id>", summary="One upload with its report")
def read_upload(path: UploadPath) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        return show_upload(service.find_upload(session, actor, path.upload_id))


@contextmanager
def _closing(actor: Actor, upload_id: str) -> Iterator[None]:
    """Close the upload as refused, with the report if there is one, whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        report = error.extra.get("report") if isinstance(error, UploadRefusedError) else None
        with context().sessions.write() as session:
            service.refuse_upload(session, actor, upload_id, report, now=context().clock())
        raise
