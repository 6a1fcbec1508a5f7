"""The upload gate for adapters: files into a private folder, every check, then the store and the rows, or nothing.

It leaves the checks to `registry.adapter_check` and approval to `listing`.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.models import find_own_model
from hub.catalogue.registration import register_version
from hub.catalogue.rules import ModelTexts, check_model_name
from hub.catalogue.tables import TUNABLE_KINDS, ModelKind, ModelVersion, UploadSession, UploadState, VersionState
from hub.catalogue.versions import find_version
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.filings.refusals import translate_refusals
from hub.ids import new_id
from hub.organisations.service import find_organisation, require_verified
from registry.adapter_check import ALLOWED_NAMES, CONFIG_NAME, AdapterLimits, check_adapter
from registry.artifacts import Artifact
from registry.lineage import Lineage
from registry.report import Report
from registry.store import FolderStore
from registry.strict_json import read_json_object

MAX_OPEN = 20
OPEN_FOR = timedelta(hours=24)
"""After this an upload that was never closed (its process died) no longer counts."""


class UploadRefusedError(InvalidValueError):
    """The gate refused the upload; `report` holds every check and nothing was kept."""

    code = "upload_refused"


class BaseMismatchError(InvalidValueError):
    """The stated weights are not those of the stated base, or no base has them."""

    code = "base_mismatch"


class Incoming(Protocol):
    """One file as it arrives: its client's name, and how to write it somewhere."""

    @property
    def name(self) -> str: ...

    def save(self, target: Path, *, max_bytes: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class CheckedAdapter:
    """What the gate found; `artifact` and `rank` only if it passed."""

    report: Report
    artifact: Artifact | None = None
    artifact_uri: str = ""
    rank: int = 0


def find_upload_base(session: Session, actor: Actor, name: str | None, digest: str | None) -> ModelVersion:
    """Return the base that an adapter is for, by public name, by weights digest, or by both if they agree.

    Raises:
        BaseMismatchError: neither given, no such weights, or the two disagree. NotFoundError: no such name.
    """
    if name is not None:
        base = find_version(session, actor, name)
        if digest is not None and digest != base.weights_digest:
            raise BaseMismatchError(
                f"'{name}' has weights {base.weights_digest}, you trained on {digest}. Name the base you trained on.",
                f"“{name}”的权重摘要为 {base.weights_digest}，与您训练所用的 {digest} 不同。请选择训练所用的模型。",
                field="base_weights_digest",
            )
    else:
        base = _find_by_weights(session, actor, digest)
    if base.kind not in TUNABLE_KINDS:
        raise BaseMismatchError(
            f"'{name}' is of kind '{base.kind}'; an adapter needs a base with whole weights. Name its base.",
            f"“{name}”类型为“{base.kind}”，适配器须基于完整权重的模型。",
            field="base",
        )
    return base


def open_upload(session: Session, actor: Actor, base: ModelVersion, *, model_name: str, now: datetime) -> UploadSession:
    """Record that an upload begins; it must be closed by `accept_upload` or `refuse_upload`.

    Raises:
        ForbiddenError: the role does not upload. NotVerifiedError: the organisation is not verified.
        BadModelNameError, ConflictError: the name cannot be used, or 20 uploads are open.
    """
    actor.require(Role.INTEGRATOR, Role.FACTORY, Role.OPERATOR)
    require_verified(session, actor.organisation_id)
    name = check_model_name(model_name, find_organisation(session, actor.organisation_id).slug)
    find_own_model(session, name, kind=ModelKind.ADAPTER, base_model_id=base.model_id)
    query = select(UploadSession.id).where(
        UploadSession.organisation_id == actor.organisation_id,
        UploadSession.state == UploadState.OPEN,
        UploadSession.created_at > now - OPEN_FOR,
    )
    if (count := len(session.scalars(query).all())) >= MAX_OPEN:
        raise ConflictError(f"{count} uploads are open; the limit is {MAX_OPEN}.", f"已有 {count} 个上传进行中。")
    upload = UploadSession(
        id=new_id("upl"),
        organisation_id=actor.organisation_id,
        created_by=actor.user_id,
        model_name=name,
        base_version_id=base.id,
        state=UploadState.OPEN,
        created_at=now,
    )
    session.add(upload)
    session.flush()
    return upload


def check_files(store: FolderStore, base_digest: str, incoming: Sequence[Incoming], scratch: Path) -> CheckedAdapter:
    """Write the files into a private folder below `scratch`, run every check, store the folder if all passed.

    Slow and without a transaction. Nothing stays below `scratch`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    limits = AdapterLimits()
    with tempfile.TemporaryDirectory(dir=scratch) as name, translate_refusals():
        folder = Path(name)
        strange = _write_files(folder, incoming, limits)
        report = check_adapter(folder, store.path(base_digest), limits)
        for stranger in strange:
            _reject_name(report, stranger)
        if not report.passed:
            return CheckedAdapter(report=report)
        artifact = store.add_folder(folder)
        rank = read_json_object(store.path(artifact.digest) / CONFIG_NAME, max_bytes=limits.config_bytes)["r"]
        if not isinstance(rank, int):
            raise TypeError(f"the gate let rank {rank!r} through")
        return CheckedAdapter(report=report, artifact=artifact, artifact_uri=store.uri(artifact.digest), rank=rank)


def accept_upload(
    session: Session, actor: Actor, upload_id: str, checked: CheckedAdapter, *, texts: ModelTexts, now: datetime
) -> ModelVersion:
    """Register a passed upload as a version in review; its owner may use it at once."""
    upload = find_upload(session, actor, upload_id)
    artifact = checked.artifact
    if artifact is None:
        raise ConflictError(
            f"Upload {upload_id} did not pass; it cannot be accepted.", f"上传 {upload_id} 未通过检查。"
        )
    base = session.get_one(ModelVersion, upload.base_version_id)
    lineage = Lineage(base_weights_digest=base.weights_digest, artifact_digest=artifact.digest)
    version = register_version(
        session,
        organisation_id=actor.organisation_id,
        model_name=upload.model_name,
        base_version_id=base.id,
        artifact_digest=artifact.digest,
        artifact_uri=checked.artifact_uri,
        run_id=None,
        rank=checked.rank,
        metrics={},
        lineage=lineage.as_dict(),
        size_bytes=artifact.size_bytes,
        now=now,
        texts=texts,
        state=VersionState.IN_REVIEW,
        created_by=actor.user_id,
    )
    upload.state = UploadState.ACCEPTED
    upload.report = checked.report.as_dict()
    upload.version_id = version.id
    _record(session, "upload.accepted", upload, actor, now)
    return version


def refuse_upload(session: Session, actor: Actor, upload_id: str, report: object, *, now: datetime) -> None:
    """Close an upload that failed, keeping only the report as JSON values (None: the checks did not finish)."""
    upload = find_upload(session, actor, upload_id)
    upload.state = UploadState.REFUSED
    upload.report = report
    _record(session, "upload.refused", upload, actor, now)


def find_upload(session: Session, actor: Actor, upload_id: str) -> UploadSession:
    """Return an upload of the own organisation; operators reach any. Raises: NotFoundError."""
    upload = session.get(UploadSession, upload_id)
    if upload is None or (upload.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("upload", upload_id[:120])
    return upload


def list_uploads(session: Session, actor: Actor) -> list[UploadSession]:
    """Return the own organisation's uploads, newest first; operators see all."""
    query = select(UploadSession).order_by(UploadSession.id.desc()).limit(200)
    if actor.role is not Role.OPERATOR:
        query = query.where(UploadSession.organisation_id == actor.organisation_id)
    return list(session.scalars(query))


def explain_refusal(upload_id: str, report: Report) -> UploadRefusedError:
    """Return the error that tells an uploader every failed check."""
    failed = report.refusals
    shown_en = "; ".join(f"{check.message_en}. {check.fix_en}" for check in failed[:3])
    shown_zh = "；".join(f"{check.message_zh}。{check.fix_zh}" for check in failed[:3])
    return UploadRefusedError(
        f"The upload was refused, {len(failed)} checks failed and nothing was kept: {shown_en}",
        f"上传被拒绝，{len(failed)} 项检查未通过，文件均未保留：{shown_zh}",
        upload_id=upload_id,
        report=report.as_dict(),
    )


def _find_by_weights(session: Session, actor: Actor, digest: str | None) -> ModelVersion:
    if digest is None:
        raise BaseMismatchError(
            "Say which base the adapter is for: field 'base' (org/name) or 'base_weights_digest'.",
            "请填写适配器所基于的模型：base（机构/名称）或 base_weights_digest。",
            field="base",
        )
    query = select(ModelVersion).where(ModelVersion.weights_digest == digest, ModelVersion.kind.in_(TUNABLE_KINDS))
    for candidate in session.scalars(query.order_by(ModelVersion.id)):
        try:
            return find_version(session, actor, candidate.id)
        except NotFoundError:
            continue  # another organisation's private base of the same weights
    raise BaseMismatchError(
        f"No base here has weights {digest}. Import the base first, or train on one of the catalogue.",
        f"目录中没有权重摘要为 {digest} 的模型。请先导入或改用目录中的模型训练。",
        field="base_weights_digest",
    )


def _write_files(folder: Path, incoming: Sequence[Incoming], limits: AdapterLimits) -> list[str]:
    """Write the files whose names may be, and return the names that may not; those are not written at all."""
    caps = limits.by_name()
    strange = []
    for file in incoming:
        if file.name not in ALLOWED_NAMES or (folder / file.name).exists():
            strange.append(file.name)
            continue
        file.save(folder / file.name, max_bytes=caps[file.name])
    return strange


def _reject_name(report: Report, name: str) -> None:
    allowed = ", ".join(sorted(ALLOWED_NAMES))
    report.reject(
        "files.names",
        f"文件 {name[:80]!r} 不允许或重复",
        f"File {name[:80]!r} is not allowed or came twice",
        fix_zh=f"只接受 {allowed}，各一次",
        fix_en=f"Only {allowed} are taken, each once",
        subject=name[:80],
    )


def _record(session: Session, topic: str, upload: UploadSession, actor: Actor, now: datetime) -> None:
    record_event(
        session,
        topic,
        upload.id,
        organisation_id=upload.organisation_id,
        actor_id=actor.user_id,
        now=now,
        model=upload.model_name,
        version_id=upload.version_id,
    )
