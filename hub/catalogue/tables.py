"""Tables of the catalogue: models, versions, uploads, reviews, blocks, certificates, titles of the taxonomy.

It leaves whether a version may be served to `servability`, which derives it and never stores it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from serving.contract import BlockScope, InFlight, SubjectKind, Visibility


class ModelKind(StrEnum):
    """What is offered; independent of `engine` and `task`."""

    BASE = "base"
    VERTICAL = "vertical"
    ADAPTER = "adapter"
    FULL = "full"
    SMALL = "small"
    APP = "app"
    AGENT = "agent"
    DATASET = "dataset"
    KNOWLEDGE_BASE = "knowledge_base"


TUNABLE_KINDS = (ModelKind.BASE, ModelKind.VERTICAL, ModelKind.FULL)
"""Kinds that hold whole weights, so that an adapter can be trained on them."""


class Engine(StrEnum):
    """What runs it."""

    VLLM = "vllm"
    ONNX = "onnx"
    NONE = "none"


class Task(StrEnum):
    """What it does."""

    TEXT_GENERATION = "text_generation"
    NORMALISATION = "normalisation"
    EXTRACTION = "extraction"
    CLASSIFICATION = "classification"
    EMBEDDING = "embedding"
    VISION = "vision"
    TIME_SERIES = "time_series"
    SCHEDULING = "scheduling"


class Locality(StrEnum):
    """Where the caller's text may go."""

    IN_PLANT = "in_plant"
    IN_CITY = "in_city"
    ANYWHERE = "anywhere"


class VersionState(StrEnum):
    """Private and in_review serve the owner only, listed whom the visibility names, the others nobody."""

    DRAFT = "draft"
    IN_REVIEW = "in_review"
    LISTED = "listed"
    PRIVATE = "private"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


class UploadState(StrEnum):
    """An upload is open while its files arrive; nothing of a refused one is kept but the report."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class VersionDecision(StrEnum):
    """What a review decided."""

    APPROVE = "approve"
    REJECT = "reject"


class Model(Base):
    """One name in the catalogue with its texts and facets; the bytes are its versions'."""

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint("two_high = 0 OR two_high_evidence IS NOT NULL", name="two_high"),
        CheckConstraint("manufacturing_base = 0 OR manufacturing_base_evidence IS NOT NULL", name="manufacturing_base"),
        Index("ix_models_organisation_id_kind", "organisation_id", "kind"),
        Index("ix_models_visibility_kind", "visibility", "kind"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[ModelKind] = mapped_column(Choice(ModelKind))
    engine: Mapped[Engine] = mapped_column(Choice(Engine))
    task: Mapped[Task] = mapped_column(Choice(Task))
    title_zh: Mapped[str]
    title_en: Mapped[str]
    summary_zh: Mapped[str]
    summary_en: Mapped[str]
    card_markdown: Mapped[str]
    search_text: Mapped[str]
    industry: Mapped[str | None]
    scenario: Mapped[str | None]
    stage: Mapped[str | None]
    licence: Mapped[str | None]
    locality: Mapped[Locality] = mapped_column(Choice(Locality))
    two_high: Mapped[Switch]
    two_high_evidence: Mapped[str | None]
    manufacturing_base: Mapped[Switch]
    manufacturing_base_evidence: Mapped[str | None]
    visibility: Mapped[Visibility] = mapped_column(Choice(Visibility))
    acl: Mapped[Json]
    base_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    has_endpoint: Mapped[Switch]
    created_by: Mapped[str]
    created_at: Mapped[When]


class ModelVersion(Base):
    """One immutable set of bytes of a model. `weights_digest` is the root base's, whatever the kind."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        UniqueConstraint("model_id", "artifact_digest"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint("length(artifact_digest) = 64 AND length(weights_digest) = 64", name="digests"),
        CheckConstraint("(kind = 'adapter') = (rank IS NOT NULL)", name="rank"),
        CheckConstraint("kind <> 'adapter' OR base_version_id IS NOT NULL", name="base"),
        CheckConstraint("state <> 'listed' OR listed_at IS NOT NULL", name="listed"),
        CheckConstraint("(state = 'quarantined') = (state_before IS NOT NULL)", name="quarantine"),
        Index("ix_model_versions_organisation_id_state", "organisation_id", "state"),
        Index("ix_model_versions_weights_digest", "weights_digest"),
        Index("ix_model_versions_base_version_id", "base_version_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[Int64]
    kind: Mapped[ModelKind] = mapped_column(Choice(ModelKind))
    artifact_digest: Mapped[str]
    artifact_uri: Mapped[str]
    weights_digest: Mapped[str]
    base_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    tokenizer_digest: Mapped[str]
    template_digest: Mapped[str]
    rank: Mapped[int | None] = mapped_column(Whole)
    size_bytes: Mapped[Int64]
    parameters: Mapped[int | None] = mapped_column(Whole)
    facts: Mapped[Json]
    metrics: Mapped[Json]
    lineage: Mapped[Json]
    run_id: Mapped[str | None]
    price_version_id: Mapped[str | None] = mapped_column(ForeignKey("price_versions.id"))
    split_terms_id: Mapped[str | None] = mapped_column(ForeignKey("split_terms.id"))
    state: Mapped[VersionState] = mapped_column(Choice(VersionState))
    state_before: Mapped[VersionState | None] = mapped_column(Choice(VersionState))
    listed_at: Mapped[datetime | None] = mapped_column(Moment)
    retires_at: Mapped[datetime | None] = mapped_column(Moment)
    successor: Mapped[str | None]
    """Public name that its owner names for callers of a version that retires."""
    mlflow_model: Mapped[str | None]
    mlflow_version: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[When]


class UploadSession(Base):
    """One attempt to bring files in, with the gate's report."""

    __tablename__ = "upload_sessions"
    __table_args__ = (
        CheckConstraint("(state = 'accepted') = (version_id IS NOT NULL)", name="accepted"),
        Index("ix_upload_sessions_organisation_id_created_at", "organisation_id", "created_at"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    model_name: Mapped[str]
    base_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[UploadState] = mapped_column(Choice(UploadState))
    report: Mapped[Any | None] = mapped_column(Document)
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    created_at: Mapped[When]


class Review(Base):
    """One decision on one version, with its reason; the reviewer is not who made the version."""

    __tablename__ = "reviews"
    __table_args__ = (
        CheckConstraint("length(reason) > 0", name="reason"),
        Index("ix_reviews_organisation_id_version_id", "organisation_id", "version_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    decision: Mapped[VersionDecision] = mapped_column(Choice(VersionDecision))
    reason: Mapped[str]
    reviewed_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    reviewed_at: Mapped[When]


class Block(Base):
    """A stop from `from_at` until lifted; fields as in `serving.contract.Block`."""

    __tablename__ = "blocks"
    __table_args__ = (
        CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted"),
        Index("ix_blocks_subject", "subject"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    subject_kind: Mapped[SubjectKind] = mapped_column(Choice(SubjectKind))
    subject: Mapped[str]
    scope: Mapped[BlockScope] = mapped_column(Choice(BlockScope))
    in_flight: Mapped[InFlight] = mapped_column(Choice(InFlight))
    code: Mapped[str]
    message_zh: Mapped[str]
    message_en: Mapped[str]
    from_at: Mapped[When]
    set_by: Mapped[str]
    lifted_at: Mapped[datetime | None] = mapped_column(Moment)
    lifted_by: Mapped[str | None]


class Certificate(Base):
    """Outcome of an acceptance test, bound to the bytes that were tested and the engine that ran them."""

    __tablename__ = "certificates"
    __table_args__ = (
        CheckConstraint("expires_at > issued_at", name="order"),
        Index("ix_certificates_organisation_id_version_id", "organisation_id", "version_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    artifact_digest: Mapped[str]
    weights_digest: Mapped[str]
    engine_version: Mapped[str]
    test_name: Mapped[str]
    test_digest: Mapped[str]
    outcome: Mapped[Json]
    issued_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    issued_at: Mapped[When]
    expires_at: Mapped[When]
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)


class TaxonomyTitle(Base):
    """A title that the operator gave to an entry of the taxonomy, in place of the shipped one."""

    __tablename__ = "taxonomy_titles"
    __table_args__ = ({"sqlite_strict": True},)

    axis: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    title_zh: Mapped[str]
    title_en: Mapped[str]
    set_by: Mapped[str]
    set_at: Mapped[When]
