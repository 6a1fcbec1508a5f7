"""Deletes a data set with all that was derived from it, and keeps a receipt that says what was erased.

It leaves knowing who needs a data set, and what they keep of it, to `Readers`: runs live in a room above.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.clock import to_us
from hub.columns import write_json
from hub.database import Sessions
from hub.datasets.files import digest_text, locate_removable
from hub.datasets.previews import PREVIEW_KIND
from hub.datasets.removals import forget_removal, list_gone, list_removals, note_removal, read_asker, remove_paths
from hub.datasets.service import CHECK_KIND, OWNERS, find_dataset, record
from hub.datasets.tables import Dataset, DatasetPreview, DatasetState, DatasetVersion
from hub.errors import ConflictError
from hub.ids import new_id
from hub.jobs.service import cancel_waiting_job

log = logging.getLogger("hub.worker")


@dataclass(frozen=True)
class Readers:
    """Who reads data sets: the ids of what still needs one of these versions; files with their rows that runs keep."""

    find_needs: Callable[[Session, Sequence[str]], Sequence[str]]
    find_kept: Callable[[Session, Sequence[str], Path], Mapping[str, Sequence[Path]]]
    """Run id -> files; each run that read one of the versions, also one that keeps nothing."""


class DatasetInUseError(ConflictError):
    """Something that was ordered or is being planned still reads the data set."""

    code = "dataset_in_use"


def delete_dataset(
    session: Session, actor: Actor, dataset_id: str, *, readers: Readers, home: Path, now: datetime
) -> Dataset:
    """Delete the files of a data set and keep a receipt; again returns the same receipt.

    The caller forgets the removal once this is committed. Until then another call, like `complete_deletions`, counts
    what went before a crash.

    Files that another data set of the organisation holds by the same digest stay, and the receipt says so.

    Raises:
        NotFoundError.
        DatasetInUseError: a run that has not ended needs it.
    """
    actor.require(*OWNERS)
    dataset, _ = find_dataset(session, actor, dataset_id)
    session.refresh(dataset, with_for_update=True)  # who deletes it at this moment has written its receipt by then
    if dataset.deleted_at is not None:
        forget_removal(home, dataset.id)  # a crash came between its receipt and this
        return dataset
    _delete(session, dataset, by=actor.user_id, readers=readers, home=home, now=now)
    return dataset


def complete_deletions(sessions: Sessions, home: Path, *, readers: Readers, now: datetime) -> int:
    """Complete deletions that a crash or a failing disk cut short, each in its own transaction; returns how many.

    One that is under way is left alone, one whose rows a run has come to need waits for the run's end.
    """
    return sum(_complete(sessions, home, dataset_id, readers=readers, now=now) for dataset_id in list_removals(home))


def _complete(sessions: Sessions, home: Path, dataset_id: str, *, readers: Readers, now: datetime) -> bool:
    statement = select(Dataset).where(Dataset.id == dataset_id).with_for_update(skip_locked=True)
    try:
        with sessions.write() as session:
            dataset = session.scalar(statement)
            if dataset is None:
                return False
            if dataset.deleted_at is None:
                _delete(session, dataset, by=read_asker(home, dataset_id), readers=readers, home=home, now=now)
    except DatasetInUseError:
        return False
    except OSError as error:
        log.warning("deletion not completed", extra={"fields": {"dataset": dataset_id, "reason": str(error)}})
        return False
    forget_removal(home, dataset_id)
    return True


def _delete(session: Session, dataset: Dataset, *, by: str, readers: Readers, home: Path, now: datetime) -> None:
    """Remove the files of a locked data set and write its receipt, by whom it was asked for."""
    statement = select(DatasetVersion).where(
        DatasetVersion.organisation_id == dataset.organisation_id, DatasetVersion.dataset_id == dataset.id
    )
    own = list(session.scalars(statement.order_by(DatasetVersion.number).with_for_update()))
    versions = own + _list_holding(session, own)
    ids = [version.id for version in versions]
    needs = readers.find_needs(session, ids)
    if needs:
        raise _in_use(dataset.id, needs)
    for version in versions:
        cancel_waiting_job(session, kind=CHECK_KIND, subject=version.id, now=now)
        version.state = DatasetState.DELETED
        version.report = None
    _delete_previews(session, versions, now)
    session.flush()
    receipt: dict[str, object] = {
        "receipt_id": new_id("rcp"),
        "dataset_id": dataset.id,
        "organisation_id": dataset.organisation_id,
        "deleted_at": now.isoformat(),
        "deleted_at_us": to_us(now),
        "deleted_by": by,
    } | _remove_files(session, dataset, versions, by=by, readers=readers, home=home)
    dataset.deleted_at, dataset.deleted_by = now, by
    dataset.receipt = receipt | {"receipt_digest": digest_text(write_json(receipt))}
    record(session, "dataset.deleted", own[-1], by, now)


def _remove_files(
    session: Session, dataset: Dataset, versions: Sequence[DatasetVersion], *, by: str, readers: Readers, home: Path
) -> dict[str, object]:
    """Remove what holds rows of these versions; returns what went, a try that a crash cut short included."""
    shared = {version.id: _is_shared(session, version) for version in versions}
    paths = {version.id: _list_paths(home, version, keeps_upload=shared[version.id]) for version in versions}
    kept = readers.find_kept(session, list(shared), home)
    noted = note_removal(home, dataset.id, {**paths, **kept}, asked_by=by)
    remove_paths(path for found in (*paths.values(), *kept.values()) for path in found)
    gone = list_gone(home, noted)
    return {
        "versions": [
            _describe(version) | _count(gone[version.id]) | {"kept_for_other_datasets": shared[version.id]}
            for version in versions
        ],
        "runs": [{"run_id": run_id} | _count(gone[run_id]) for run_id in sorted(kept) if gone[run_id]],
    }


def _list_holding(session: Session, versions: Sequence[DatasetVersion]) -> list[DatasetVersion]:
    """Versions of other data sets that hold one of these out: their checked files carry its rows."""
    statement = select(DatasetVersion).where(
        DatasetVersion.organisation_id == versions[0].organisation_id,
        DatasetVersion.held_version_id.in_([version.id for version in versions]),
        DatasetVersion.dataset_id != versions[0].dataset_id,
    )
    return list(session.scalars(statement.order_by(DatasetVersion.id).with_for_update()))


def _delete_previews(session: Session, versions: Sequence[DatasetVersion], now: datetime) -> None:
    ids = [version.id for version in versions]
    owner = versions[0].organisation_id
    statement = select(DatasetPreview).where(
        DatasetPreview.organisation_id == owner, DatasetPreview.version_id.in_(ids)
    )
    for preview in session.scalars(statement):
        cancel_waiting_job(session, kind=PREVIEW_KIND, subject=preview.id, now=now)
        session.delete(preview)


def _is_shared(session: Session, version: DatasetVersion) -> bool:
    """Whether another data set of the organisation holds the same upload."""
    others = session.scalar(
        select(func.count())
        .select_from(DatasetVersion)
        .where(
            DatasetVersion.organisation_id == version.organisation_id,
            DatasetVersion.source_digest == version.source_digest,
            DatasetVersion.state != DatasetState.DELETED,
        )
    )
    return bool(others)


def _list_paths(home: Path, version: DatasetVersion, *, keeps_upload: bool) -> Sequence[Path]:
    owner, digest = version.organisation_id, version.source_digest
    return locate_removable(home, owner, digest, version.id, keeps_upload=keeps_upload)


def _count(files: Mapping[str, int]) -> dict[str, object]:
    return {"files_removed": len(files), "bytes_removed": sum(files.values())}


def _describe(version: DatasetVersion) -> dict[str, object]:
    return {
        "version_id": version.id,
        "number": version.number,
        "file_name": version.file_name,
        "source_digest": version.source_digest,
        "train_digest": version.train_digest,
        "valid_digest": version.valid_digest,
        "train_rows": version.train_rows,
        "valid_rows": version.valid_rows,
    }


def _in_use(dataset_id: str, needs: Sequence[str]) -> DatasetInUseError:
    shown = ", ".join(needs[:3])
    return DatasetInUseError(
        f"Data set {dataset_id} is needed by {len(needs)} runs that have not ended ({shown}). Wait for them or cancel "
        "them, then delete.",
        f"数据集 {dataset_id} 仍被 {len(needs)} 个未结束的任务使用（{shown}）。请等待其结束或取消后再删除。",
        field="dataset_id",
        runs=list(needs[:20]),
    )
