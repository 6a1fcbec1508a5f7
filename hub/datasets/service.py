"""Data sets: enter an upload, find, acknowledge warnings, delete with a receipt. The only writer of their rows.

It leaves bytes to `hub.datasets.files` and reading rows to the check job (`hub.datasets.checking`).
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import ColumnRole, SourceFormat
from hub.actor import Actor, Role
from hub.datasets.files import StoredFile, locate_folder, remove_folder
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.errors import ConflictError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.jobs.service import cancel_waiting_job, enqueue_job

CHECK_KIND = "dataset.check"


class DatasetNotReadyError(ConflictError):
    """The data set cannot be used yet, or not at all; the message says what is missing."""

    code = "dataset_not_ready"


def add_dataset(
    session: Session,
    actor: Actor,
    *,
    name: str,
    stored: StoredFile,
    source_format: SourceFormat,
    file_name: str,
    mapping: Mapping[str, ColumnRole],
    now: datetime,
) -> tuple[Dataset, DatasetVersion]:
    """Enter an upload as a data set with version 1 and queue its check."""
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    dataset = Dataset(
        id=new_id("dst"),
        organisation_id=actor.organisation_id,
        name=name,
        created_by=actor.user_id,
        created_at=now,
    )
    version = DatasetVersion(
        id=new_id("dsv"),
        organisation_id=actor.organisation_id,
        dataset_id=dataset.id,
        number=1,
        state=DatasetState.CHECKING,
        source_digest=stored.digest,
        format=source_format,
        file_name=Path(file_name).name[:200],
        size_bytes=stored.size_bytes,
        mapping={column: str(role) for column, role in mapping.items()},
        created_at=now,
    )
    session.add(dataset)
    session.flush()
    session.add(version)
    session.flush()
    enqueue_job(session, kind=CHECK_KIND, subject=version.id, organisation_id=actor.organisation_id, now=now)
    _record(session, "dataset.uploaded", version, actor.user_id, now)
    return dataset, version


def find_dataset(session: Session, actor: Actor, dataset_id: str) -> tuple[Dataset, DatasetVersion]:
    """Return a data set of the actor's organisation with its newest version. Raises: NotFoundError."""
    row = session.execute(
        select(Dataset, DatasetVersion)
        .join(DatasetVersion, DatasetVersion.dataset_id == Dataset.id)
        .where(Dataset.organisation_id == actor.organisation_id, Dataset.id == dataset_id)
        .order_by(DatasetVersion.number.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise NotFoundError.of("dataset", dataset_id)
    return row[0], row[1]


def find_usable_version(session: Session, actor: Actor, key: str) -> DatasetVersion:
    """Return the version to train on, by data set id or version id.

    Raises:
        NotFoundError: not this organisation's.
        DatasetNotReadyError: still checking, blocked, deleted, or warnings not acknowledged.
    """
    version = session.scalar(
        select(DatasetVersion)
        .where(
            DatasetVersion.organisation_id == actor.organisation_id,
            (DatasetVersion.id == key) | (DatasetVersion.dataset_id == key),
        )
        .order_by(DatasetVersion.number.desc())
        .limit(1)
    )
    if version is None:
        raise NotFoundError.of("dataset", key)
    if version.state is not DatasetState.READY:
        raise _not_ready(version)
    return version


def list_datasets(session: Session, actor: Actor) -> list[tuple[Dataset, DatasetVersion]]:
    """Return the organisation's data sets with their newest versions, newest first; deleted ones are left out."""
    newest = (
        select(DatasetVersion.dataset_id, func.max(DatasetVersion.number).label("number"))
        .where(DatasetVersion.organisation_id == actor.organisation_id)
        .group_by(DatasetVersion.dataset_id)
        .subquery()
    )
    statement = (
        select(Dataset, DatasetVersion)
        .join(newest, newest.c.dataset_id == Dataset.id)
        .join(
            DatasetVersion,
            (DatasetVersion.dataset_id == Dataset.id) & (DatasetVersion.number == newest.c.number),
        )
        .where(Dataset.organisation_id == actor.organisation_id, Dataset.deleted_at.is_(None))
        .order_by(Dataset.id.desc())
    )
    return [(dataset, version) for dataset, version in session.execute(statement)]


def acknowledge_warnings(session: Session, actor: Actor, dataset_id: str, *, now: datetime) -> DatasetVersion:
    """Accept the warnings of the newest version once; again changes nothing.

    Raises:
        NotFoundError, DatasetNotReadyError: there are errors, or the check still runs.
    """
    _, version = find_dataset(session, actor, dataset_id)
    if version.state is DatasetState.READY:
        return version
    if version.state is not DatasetState.WARNED:
        raise _not_ready(version)
    version.state = DatasetState.READY
    version.acknowledged_by, version.acknowledged_at = actor.user_id, now
    _record(session, "dataset.acknowledged", version, actor.user_id, now)
    return version


def delete_dataset(session: Session, actor: Actor, dataset_id: str, *, home: Path, now: datetime) -> Dataset:
    """Delete the files of a data set and keep a receipt; again returns the same receipt.

    Files that another data set of the organisation holds by the same digest stay, and the receipt says so.
    """
    dataset, _ = find_dataset(session, actor, dataset_id)
    if dataset.deleted_at is not None:
        return dataset
    versions = list(session.scalars(select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)))
    for version in versions:
        cancel_waiting_job(session, kind=CHECK_KIND, subject=version.id, now=now)
        version.state = DatasetState.DELETED
        version.report = None
    session.flush()
    removed = [_remove_version(session, version, home) for version in versions]
    dataset.deleted_at, dataset.deleted_by = now, actor.user_id
    dataset.receipt = {
        "receipt_id": new_id("rcp"),
        "dataset_id": dataset.id,
        "deleted_at": now.isoformat(),
        "deleted_by": actor.user_id,
        "versions": removed,
    }
    _record(session, "dataset.deleted", versions[-1], actor.user_id, now)
    return dataset


def locate_checked(home: Path, version: DatasetVersion) -> Path:
    """Return the folder with the checked `train.jsonl` and `valid.jsonl` of a version."""
    folder = locate_folder(home, version.organisation_id, version.source_digest)
    return folder / (version.checked_folder or "unchecked")


def _remove_version(session: Session, version: DatasetVersion, home: Path) -> dict[str, object]:
    shared = session.scalar(
        select(func.count())
        .select_from(DatasetVersion)
        .where(
            DatasetVersion.organisation_id == version.organisation_id,
            DatasetVersion.source_digest == version.source_digest,
            DatasetVersion.state != DatasetState.DELETED,
        )
    )
    files, size_bytes = (0, 0) if shared else remove_folder(home, version.organisation_id, version.source_digest)
    return {
        "version_id": version.id,
        "source_digest": version.source_digest,
        "files_removed": files,
        "bytes_removed": size_bytes,
        "kept_for_other_datasets": bool(shared),
    }


def _not_ready(version: DatasetVersion) -> DatasetNotReadyError:
    en, zh = _NEXT_STEPS[version.state]
    return DatasetNotReadyError(
        f"Data set {version.dataset_id} is '{version.state}': {en}",
        f"数据集 {version.dataset_id} 状态为“{version.state}”：{zh}",
        field="dataset_id",
        state=str(version.state),
    )


_NEXT_STEPS = {
    DatasetState.CHECKING: ("wait until the check has finished.", "请等待检查完成。"),
    DatasetState.WARNED: (
        "read the report and acknowledge its warnings (POST …/acknowledge).",
        "请阅读报告并确认警告。",
    ),
    DatasetState.BLOCKED: (
        "the report lists errors; correct the file and upload it again.",
        "请按报告修正后重新上传。",
    ),
    DatasetState.FAILED: ("the check itself failed; upload the file again.", "检查未能完成，请重新上传。"),
    DatasetState.DELETED: ("it was deleted; upload it again.", "已删除，请重新上传。"),
}


def _record(session: Session, topic: str, version: DatasetVersion, actor_id: str, now: datetime) -> None:
    record_event(
        session,
        topic,
        version.dataset_id,
        organisation_id=version.organisation_id,
        actor_id=actor_id,
        now=now,
        version_id=version.id,
        state=str(version.state),
        source_digest=version.source_digest,
    )
