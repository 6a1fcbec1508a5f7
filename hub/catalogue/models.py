"""Makes models: the name, texts and facets that versions gather under. It leaves bytes and states to the versions."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.rules import ModelTexts, check_model_name, write_search_text
from hub.catalogue.tables import Model, ModelKind
from hub.catalogue.taxonomy import FACETS, check_code
from hub.errors import ConflictError
from hub.ids import new_id
from hub.organisations.service import find_organisation
from serving.contract import Visibility

MAX_MODELS = 2_000


def create_model(
    session: Session,
    *,
    organisation_id: str,
    name: str,
    kind: ModelKind,
    texts: ModelTexts,
    base_model_id: str | None,
    visibility: Visibility,
    created_by: str,
    now: datetime,
) -> Model:
    """Add a model under `slug/name`. The name must be free: `find_or_create_model` reuses the own one.

    Raises:
        BadModelNameError, UnknownCodeError: a text breaks its rule. ConflictError: 2,000 models already.
    """
    slug = find_organisation(session, organisation_id).slug
    count = session.scalar(select(func.count()).where(Model.organisation_id == organisation_id)) or 0
    if count >= MAX_MODELS:
        raise ConflictError(
            f"Your organisation has {count} models; the limit is {MAX_MODELS}.",
            f"本机构已有 {count} 个模型，上限 {MAX_MODELS}。",
        )
    full_name = check_model_name(name, slug)
    model = Model(
        id=new_id("mdl"),
        organisation_id=organisation_id,
        name=full_name,
        kind=kind,
        two_high=False,
        manufacturing_base=False,
        visibility=visibility,
        acl=[],
        base_model_id=base_model_id,
        has_endpoint=False,
        created_by=created_by,
        created_at=now,
    )
    apply_texts(model, texts)
    session.add(model)
    session.flush()
    return model


def apply_texts(model: Model, texts: ModelTexts) -> None:
    """Write texts and facets onto a model; empty titles become the name. Raises: UnknownCodeError."""
    short = model.name.partition("/")[2]
    for axis in FACETS:
        setattr(model, axis, check_code(axis, getattr(texts, axis)))
    model.title_zh = texts.title_zh or texts.title_en or short
    model.title_en = texts.title_en or texts.title_zh or short
    model.summary_zh, model.summary_en = texts.summary_zh, texts.summary_en
    model.card_markdown = texts.card_markdown
    model.licence, model.locality = texts.licence, texts.locality
    model.engine, model.task = texts.engine, texts.task
    model.search_text = write_search_text(model.name, texts)


def find_or_create_model(
    session: Session,
    *,
    organisation_id: str,
    name: str,
    kind: ModelKind,
    texts: ModelTexts,
    base_model_id: str | None,
    visibility: Visibility,
    created_by: str,
    now: datetime,
) -> Model:
    """Return the organisation's model of that name and kind, made if missing.

    Raises:
        ConflictError: the name is one of another kind or of another base.
    """
    full_name = check_model_name(name, find_organisation(session, organisation_id).slug)
    model = find_own_model(session, full_name, kind=kind, base_model_id=base_model_id)
    if model is not None:
        return model
    return create_model(
        session,
        organisation_id=organisation_id,
        name=full_name,
        kind=kind,
        texts=texts,
        base_model_id=base_model_id,
        visibility=visibility,
        created_by=created_by,
        now=now,
    )


def find_own_model(session: Session, full_name: str, *, kind: ModelKind, base_model_id: str | None) -> Model | None:
    """Return the model of a checked name if versions of that kind and base may go under it, None if it is free.

    Raises:
        ConflictError: the name is one of another kind or of another base.
    """
    model = session.scalar(select(Model).where(Model.name == full_name))
    if model is not None and (model.kind is not kind or model.base_model_id != base_model_id):
        raise ConflictError(
            f"'{full_name}' is a model of kind '{model.kind}' or on another base. Choose another name.",
            f"“{full_name}”已是其他类型或其他基础模型的模型，请另选名称。",
            field="name",
        )
    return model
