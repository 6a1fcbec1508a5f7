"""Further versions of a data set: the same upload read with other columns or corrections; registration of rights.

It leaves the first version to `hub.datasets.service` and what a correction does to the trainer's check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from finetune.spec import ColumnRole, FixAction
from hub.actor import Actor
from hub.datasets.files import StoredFile
from hub.datasets.rules import read_fixes
from hub.datasets.service import OWNERS, Reading, add_version, find_dataset, next_number, not_ready, record
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.errors import InvalidValueError, NotFoundError


@dataclass(frozen=True)
class Rights:
    """A registration of data rights as its certificate says it."""

    number: str
    body: str | None
    licence: str | None
    owner: str


def list_versions(session: Session, actor: Actor, dataset_id: str) -> Sequence[DatasetVersion]:
    """Return the versions of a data set of the actor's organisation, newest first. Raises: NotFoundError."""
    statement = (
        select(DatasetVersion)
        .where(DatasetVersion.organisation_id == actor.organisation_id, DatasetVersion.dataset_id == dataset_id)
        .order_by(DatasetVersion.number.desc())
    )
    found = session.scalars(statement).all()
    if not found:
        raise NotFoundError.of("dataset", dataset_id)
    return found


def find_version(session: Session, actor: Actor, dataset_id: str, number: int | None) -> DatasetVersion:
    """Return one version by its number, the newest without one. Raises: NotFoundError."""
    found = list_versions(session, actor, dataset_id)
    usual = [one for one in found if one.held_version_id is None]
    chosen = usual[0] if number is None else next((one for one in found if one.number == number), None)
    if chosen is None:
        raise NotFoundError.of("version of the data set", str(number))
    return chosen


def correct_dataset(
    session: Session,
    actor: Actor,
    dataset_id: str,
    *,
    mapping: Mapping[str, ColumnRole] | None,
    fixes: Mapping[str, str] | None,
    now: datetime,
    number: int | None = None,
) -> DatasetVersion:
    """Read the upload of a version (the newest without `number`) in another way as the next; None keeps what it had.

    `fixes` are added to those of the version before. The same wish again returns the newest version as it is.

    Raises:
        NotFoundError, DatasetNotReadyError: still checking, or deleted.
        InvalidValueError: a correction that the version's report does not offer.
    """
    actor.require(*OWNERS)
    dataset, _ = find_dataset(session, actor, dataset_id)
    newest = find_version(session, actor, dataset_id, number)
    if newest.state in (DatasetState.CHECKING, DatasetState.DELETED):
        raise not_ready(newest)
    before = {code: FixAction(action) for code, action in newest.fixes.items()}
    reading = Reading(
        StoredFile(newest.source_digest, newest.size_bytes),
        newest.format,
        newest.file_name,
        {name: ColumnRole(role) for name, role in newest.mapping.items()} if mapping is None else mapping,
        before | read_fixes(newest.report, fixes or {}),
        newest.held_version_id,
    )
    same = {name: str(role) for name, role in reading.mapping.items()} == newest.mapping and reading.fixes == before
    if same and newest.state is not DatasetState.FAILED:
        return newest
    return add_version(session, actor, dataset, reading, number=next_number(session, dataset.id), now=now)


def hold_out_file(
    session: Session, actor: Actor, dataset_id: str, held_dataset_id: str, *, now: datetime, field: str
) -> DatasetVersion:
    """Read a data set with another upload held out whole, instead of a part of its own rows; again the same version.

    `field` is what a refusal calls the other upload.

    Raises:
        NotFoundError: one of the two is not this organisation's.
        DatasetNotReadyError: one of them was deleted.
        InvalidValueError: both are the same bytes, or files of different formats.
    """
    actor.require(*OWNERS)
    (dataset, newest), (_, held) = (find_dataset(session, actor, key) for key in (dataset_id, held_dataset_id))
    for version in (newest, held):
        if version.state is DatasetState.DELETED:
            raise not_ready(version)
    if newest.source_digest == held.source_digest or newest.format is not held.format:
        raise InvalidValueError(
            f"{field} is '{held.file_name}' ({held.format}), training_file is '{newest.file_name}' "
            f"({newest.format}); send another file of the same format.",
            f"验证文件“{held.file_name}”（{held.format}）与训练文件“{newest.file_name}”（{newest.format}）"
            "须为同一格式的不同文件。",
            field=field,
        )
    known = session.scalars(
        select(DatasetVersion)
        .where(
            DatasetVersion.dataset_id == dataset.id,
            DatasetVersion.held_version_id == held.id,
            DatasetVersion.state != DatasetState.FAILED,
        )
        .order_by(DatasetVersion.number.desc())
    )
    for version in known:
        if version.mapping == newest.mapping and newest.fixes.items() <= version.fixes.items():
            return version
    reading = Reading(
        StoredFile(newest.source_digest, newest.size_bytes),
        newest.format,
        newest.file_name,
        {name: ColumnRole(role) for name, role in newest.mapping.items()},
        {code: FixAction(action) for code, action in newest.fixes.items()},
        held.id,
    )
    return add_version(session, actor, dataset, reading, number=next_number(session, dataset.id), now=now)


def list_validated(session: Session, actor: Actor) -> list[tuple[Dataset, DatasetVersion, DatasetVersion]]:
    """Return data set, version and held version of each version that is ready and holds one out, newest first."""
    held = aliased(DatasetVersion)
    statement = (
        select(Dataset, DatasetVersion, held)
        .join(DatasetVersion, DatasetVersion.dataset_id == Dataset.id)
        .join(held, held.id == DatasetVersion.held_version_id)
        .where(Dataset.organisation_id == actor.organisation_id, DatasetVersion.state == DatasetState.READY)
        .order_by(DatasetVersion.id.desc())
    )
    return [(dataset, version, other) for dataset, version, other in session.execute(statement)]


def register_rights(session: Session, actor: Actor, dataset_id: str, rights: Rights, *, now: datetime) -> Dataset:
    """Note the registration of a data set's rights; a later one takes its place. Raises: NotFoundError."""
    actor.require(*OWNERS)
    dataset, newest = find_dataset(session, actor, dataset_id)
    if dataset.deleted_at is not None:
        raise not_ready(newest)
    dataset.registration_number, dataset.registration_body = rights.number, rights.body
    dataset.licence, dataset.rights_owner = rights.licence, rights.owner
    dataset.registered_by, dataset.registered_at = actor.user_id, now
    record(session, "dataset.registered", newest, actor.user_id, now)
    return dataset
