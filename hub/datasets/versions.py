"""Further versions of a data set: the same upload read with other columns or corrections; registration of rights.

It leaves the first version to `hub.datasets.service` and what a correction does to the trainer's check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from finetune.spec import ColumnRole, FixAction
from hub.actor import Actor
from hub.datasets.files import StoredFile
from hub.datasets.rules import read_fixes
from hub.datasets.service import OWNERS, Reading, add_version, find_dataset, not_ready, record
from hub.datasets.tables import Dataset, DatasetState, DatasetVersion
from hub.errors import NotFoundError


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
    chosen = next((one for one in found if number in (None, one.number)), None)
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
) -> DatasetVersion:
    """Read the newest version's upload in another way as the next version; None keeps what that version had.

    `fixes` are added to those of the version before. The same wish again returns the newest version as it is.

    Raises:
        NotFoundError, DatasetNotReadyError: still checking, or deleted.
        InvalidValueError: a correction that the newest report does not offer.
    """
    actor.require(*OWNERS)
    dataset, newest = find_dataset(session, actor, dataset_id)
    if newest.state in (DatasetState.CHECKING, DatasetState.DELETED):
        raise not_ready(newest)
    before = {code: FixAction(action) for code, action in newest.fixes.items()}
    reading = Reading(
        StoredFile(newest.source_digest, newest.size_bytes),
        newest.format,
        newest.file_name,
        {name: ColumnRole(role) for name, role in newest.mapping.items()} if mapping is None else mapping,
        before | read_fixes(newest.report, fixes or {}),
    )
    same = {name: str(role) for name, role in reading.mapping.items()} == newest.mapping and reading.fixes == before
    if same and newest.state is not DatasetState.FAILED:
        return newest
    return add_version(session, actor, dataset, reading, number=newest.number + 1, now=now)


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
