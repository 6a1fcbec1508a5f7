"""Rows of data sets and their versions. The rows of data themselves lie in files of the owner's folder, never here."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from finetune.spec import SourceFormat
from hub.columns import Choice, Document, Int64, Json, Key, Moment, When, Whole
from hub.database import Base


class DatasetState(StrEnum):
    """`warned` needs one acknowledgement to become `ready`; `blocked` has errors; `failed` is our fault."""

    CHECKING = "checking"
    READY = "ready"
    WARNED = "warned"
    BLOCKED = "blocked"
    FAILED = "failed"
    DELETED = "deleted"


class Dataset(Base):
    """One data set of one organisation; deletion leaves the row with its receipt."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_organisation_id_deleted_at", "organisation_id", "deleted_at"),
        CheckConstraint("(deleted_at IS NULL) = (receipt IS NULL)", name="receipt"),
        CheckConstraint("(registered_at IS NULL) = (registration_number IS NULL)", name="registered"),
        CheckConstraint("(registered_at IS NULL) = (rights_owner IS NULL)", name="registered_owner"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[When]
    deleted_at: Mapped[datetime | None] = mapped_column(Moment)
    deleted_by: Mapped[str | None]
    receipt: Mapped[Any | None] = mapped_column(Document)
    registration_number: Mapped[str | None]
    """Number of the data-intellectual-property registration (数据知识产权登记)."""
    registration_body: Mapped[str | None]
    licence: Mapped[str | None]
    rights_owner: Mapped[str | None]
    registered_by: Mapped[str | None]
    registered_at: Mapped[datetime | None] = mapped_column(Moment)


class DatasetVersion(Base):
    """One way to read one upload: `source_digest` is the sha256 of its bytes; what check wrote is named by digests too.

    Neither the upload nor a checked file ever changes: other columns or corrections make another version.
    """

    __tablename__ = "dataset_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "number"),
        Index("ix_dataset_versions_organisation_id_source_digest", "organisation_id", "source_digest"),
        CheckConstraint("number > 0 AND size_bytes > 0", name="sizes"),
        CheckConstraint("length(source_digest) = 64", name="source_digest"),
        CheckConstraint(
            "state NOT IN ('ready', 'warned') OR (train_digest IS NOT NULL AND valid_digest IS NOT NULL)",
            name="checked_has_digests",
        ),
        CheckConstraint("(acknowledged_at IS NULL) = (acknowledged_by IS NULL)", name="acknowledged"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    number: Mapped[Int64]
    state: Mapped[DatasetState] = mapped_column(Choice(DatasetState))
    source_digest: Mapped[str]
    format: Mapped[SourceFormat] = mapped_column(Choice(SourceFormat))
    file_name: Mapped[str]
    size_bytes: Mapped[Int64]
    mapping: Mapped[Json]
    """Column name to role; empty lets check guess."""
    fixes: Mapped[Json]
    """Code of the report to the correction wished for all of its findings."""
    held_version_id: Mapped[str | None] = mapped_column(ForeignKey("dataset_versions.id"))
    """Another upload that is held out whole; such a version is never the newest."""
    created_by: Mapped[str]
    checked_folder: Mapped[str | None]
    """Folder of the finished check, below the digest's folder."""
    report: Mapped[Any | None] = mapped_column(Document)
    train_digest: Mapped[str | None]
    valid_digest: Mapped[str | None]
    train_rows: Mapped[int | None] = mapped_column(Whole)
    valid_rows: Mapped[int | None] = mapped_column(Whole)
    reason_code: Mapped[str | None]
    acknowledged_by: Mapped[str | None]
    acknowledged_at: Mapped[datetime | None] = mapped_column(Moment)
    checked_at: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[When]


class PreviewState(StrEnum):
    """Whether the tokens of a version can be shown; `failed` names a reason."""

    WORKING = "working"
    READY = "ready"
    FAILED = "failed"


class DatasetPreview(Base):
    """How one base reads one version: figures here, tokens in a file of the owner's folder."""

    __tablename__ = "dataset_previews"
    __table_args__ = (
        UniqueConstraint("version_id", "base_version_id"),
        Index("ix_dataset_previews_organisation_id_version_id", "organisation_id", "version_id"),
        CheckConstraint("state <> 'ready' OR folder IS NOT NULL", name="ready_has_folder"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    base_version_id: Mapped[str]
    """A version of the catalogue, a room above this one."""
    base_name: Mapped[str]
    artifact_digest: Mapped[str]
    weights_digest: Mapped[str]
    tokenizer_digest: Mapped[str]
    template_digest: Mapped[str]
    state: Mapped[PreviewState] = mapped_column(Choice(PreviewState))
    folder: Mapped[str | None]
    figures: Mapped[Any | None] = mapped_column(Document)
    reason_code: Mapped[str | None]
    message: Mapped[str | None]
    created_at: Mapped[When]
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
