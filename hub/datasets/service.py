"""Data sets: enter an upload, find, acknowledge warnings. Writes their rows, as `versions` and `deletion` do.

It leaves bytes to `hub.datasets.files` and reading rows to the check job (`hub.datasets.checking`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import ColumnRole, FixAction, SourceFormat
from hub.actor import Actor, Role
from hub.datasets.files import StoredFile, locate_folder
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.errors import ConflictError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.jobs.service import enqueue_job

CHECK_KIND = "dataset.check"


OWNERS = (Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
"""Roles that may bring data; what they bring is seen by their own organisation alone, also an operator's."""


@dataclass(frozen=True)
class Reading:
    """An upload with what its columns mean and which corrections its owner asked for."""

    stored: StoredFile
    source_format: SourceFormat
    file_name: str
    mapping: Mapping[str, ColumnRole]
    fixes: Mapping[str, FixAction] = field(default_factory=dict)
    held_version_id: str | None = None


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
    actor.require(*OWNERS)
    dataset = Dataset(
        id=new_id("dst"),
        organisation_id=actor.organisation_id,
        name=name,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(dataset)
    session.flush()
    reading = Reading(stored, source_format, Path(file_name).name[:200], mapping)
    return dataset, add_version(session, actor, dataset, reading, number=1, now=now)


def add_version(
    session: Session, actor: Actor, dataset: Dataset, reading: Reading, *, number: int, now: datetime
) -> DatasetVersion:
    """Enter one way to read an upload as a version and queue its check."""
    version = DatasetVersion(
        id=new_id("dsv"),
        organisation_id=dataset.organisation_id,
        dataset_id=dataset.id,
        number=number,
        state=DatasetState.CHECKING,
        source_digest=reading.stored.digest,
        format=reading.source_format,
        file_name=reading.file_name,
        size_bytes=reading.stored.size_bytes,
        mapping={column: str(role) for column, role in reading.mapping.items()},
        fixes={code: str(action) for code, action in reading.fixes.items()},
        held_version_id=reading.held_version_id,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(version)
    session.flush()
    enqueue_job(session, kind=CHECK_KIND, subject=version.id, organisation_id=dataset.organisation_id, now=now)
    record(session, "dataset.uploaded", version, actor.user_id, now)
    return version


def find_dataset(session: Session, actor: Actor, dataset_id: str) -> tuple[Dataset, DatasetVersion]:
    """Return a data set of the actor's organisation with its newest version that holds no other upload out.

    Raises:
        NotFoundError.
    """
    row = session.execute(
        select(Dataset, DatasetVersion)
        .join(DatasetVersion, DatasetVersion.dataset_id == Dataset.id)
        .where(Dataset.organisation_id == actor.organisation_id, Dataset.id == dataset_id)
        .where(DatasetVersion.held_version_id.is_(None))
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
            (DatasetVersion.id == key)
            | ((DatasetVersion.dataset_id == key) & DatasetVersion.held_version_id.is_(None)),
        )
        .order_by(DatasetVersion.number.desc())
        .limit(1)
    )
    if version is None:
        raise NotFoundError.of("dataset", key)
    if version.state is not DatasetState.READY:
        raise not_ready(version)
    return version


def next_number(session: Session, dataset_id: str) -> int:
    """Return the number of a data set's next version."""
    query = select(func.max(DatasetVersion.number)).where(DatasetVersion.dataset_id == dataset_id)
    return (session.scalar(query) or 0) + 1


def list_datasets(session: Session, actor: Actor) -> list[tuple[Dataset, DatasetVersion]]:
    """Return the organisation's data sets with their newest versions, newest first; deleted ones are left out."""
    newest = (
        select(DatasetVersion.dataset_id, func.max(DatasetVersion.number).label("number"))
        .where(DatasetVersion.organisation_id == actor.organisation_id, DatasetVersion.held_version_id.is_(None))
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


def acknowledge_version(session: Session, actor: Actor, version: DatasetVersion, *, now: datetime) -> DatasetVersion:
    """Accept the warnings of one version once; again changes nothing.

    Raises:
        DatasetNotReadyError: there are errors, or the check still runs.
    """
    if version.state is DatasetState.READY:
        return version
    if version.state is not DatasetState.WARNED:
        raise not_ready(version)
    version.state = DatasetState.READY
    version.acknowledged_by, version.acknowledged_at = actor.user_id, now
    record(session, "dataset.acknowledged", version, actor.user_id, now)
    return version


def locate_checked(home: Path, version: DatasetVersion) -> Path:
    """Return the folder with the checked `train.jsonl` and `valid.jsonl` of a version."""
    folder = locate_folder(home, version.organisation_id, version.source_digest)
    return folder / (version.checked_folder or "unchecked")


def not_ready(version: DatasetVersion) -> DatasetNotReadyError:
    """Return the refusal to use a version, with the next step."""
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


def record(session: Session, topic: str, version: DatasetVersion, actor_id: str, now: datetime) -> None:
    """Write an event of a version: digests and states, never anything of a row."""
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
