"""Registers versions: the next number of a model, its bytes by digest, its lineage.

It leaves who may see them to `versions`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.models import find_or_create_model
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import Model, ModelKind, ModelVersion, VersionState
from hub.catalogue.versions import model_of
from hub.errors import NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from serving.contract import Visibility


def add_version(
    session: Session, model: Model, *, state: VersionState, created_by: str, now: datetime, **columns: Any
) -> ModelVersion:
    """Add the next version of a model; the same bytes again return the version they already are."""
    same = session.scalar(
        select(ModelVersion).where(
            ModelVersion.model_id == model.id, ModelVersion.artifact_digest == columns["artifact_digest"]
        )
    )
    if same is not None:
        return same
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model.id)) or 0
    version = ModelVersion(
        id=new_id("ver"),
        organisation_id=model.organisation_id,
        model_id=model.id,
        number=last + 1,
        kind=model.kind,
        state=state,
        listed_at=now if state is VersionState.LISTED else None,
        created_by=created_by,
        created_at=now,
        **columns,
    )
    session.add(version)
    session.flush()
    record_event(
        session,
        "version.registered",
        version.id,
        organisation_id=model.organisation_id,
        actor_id=created_by,
        now=now,
        name=f"{model.name}@{version.number}",
        artifact_digest=version.artifact_digest,
        weights_digest=version.weights_digest,
    )
    return version


def register_version(
    session: Session,
    *,
    organisation_id: str,
    model_name: str,
    base_version_id: str,
    artifact_digest: str,
    artifact_uri: str,
    run_id: str | None,
    rank: int,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    size_bytes: int,
    now: datetime,
    texts: ModelTexts | None = None,
    state: VersionState = VersionState.PRIVATE,
    created_by: str = SYSTEM,
    variant: str | None = None,
) -> ModelVersion:
    """Register an adapter of a base as the next version of `slug/name`; the model is made if missing. Idempotent.

    Facts (context length and so on), tokenizer, template and root weights come from the base. `variant` names an
    adapter that is not plain LoRA (`hub.deployments.own_engines`).

    Raises:
        BadModelNameError, ConflictError: the name cannot be used. NotFoundError: no such base.
    """
    base = session.get(ModelVersion, base_version_id)
    if base is None:
        raise NotFoundError.of("model version", base_version_id)
    base_model = model_of(session, base)
    model = find_or_create_model(
        session,
        organisation_id=organisation_id,
        name=model_name,
        kind=ModelKind.ADAPTER,
        texts=texts or _texts_of_base(base_model),
        base_model_id=base_model.id,
        visibility=Visibility.PRIVATE,
        created_by=created_by,
        now=now,
    )
    return add_version(
        session,
        model,
        state=state,
        created_by=created_by,
        now=now,
        artifact_digest=artifact_digest,
        artifact_uri=artifact_uri,
        weights_digest=base.weights_digest,
        base_version_id=base.id,
        tokenizer_digest=base.tokenizer_digest,
        template_digest=base.template_digest,
        rank=rank,
        size_bytes=size_bytes,
        facts=base.facts | ({"variant": variant} if variant else {}),
        metrics=dict(metrics),
        lineage=dict(lineage),
        run_id=run_id,
    )


def _texts_of_base(base: Model) -> ModelTexts:
    return ModelTexts(
        industry=base.industry,
        scenario=base.scenario,
        stage=base.stage,
        licence=base.licence,
        locality=base.locality,
        engine=base.engine,
        task=base.task,
    )
