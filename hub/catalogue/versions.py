"""Finds versions: who may see them, by id or public name, and their lineage up to the root base.

It leaves whether a version may be called to `servability`, writing to `registration` and `listing`.
"""

from sqlalchemy import Text, and_, or_, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from hub.actor import Actor, Role
from hub.catalogue.rules import parse_public_name
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.errors import ConflictError, NotFoundError
from serving.contract import Visibility

MAX_DEPTH = 32


def visible_to(actor: Actor | None) -> ColumnElement[bool]:
    """Return the condition under which somebody sees a version (query joins Model and ModelVersion).

    Listed (also since retired) versions of public models: everybody; of `acl` models: the organisations named; all
    else: the owner, operators and auditors.
    """
    listed = and_(
        ModelVersion.state.in_((VersionState.LISTED, VersionState.RETIRED)), ModelVersion.listed_at.is_not(None)
    )
    public = and_(listed, Model.visibility == Visibility.PUBLIC)
    if actor is None:
        return public
    if actor.reads_all:
        return Model.id.is_not(None)
    # The list of an ACL is canonical JSON of ids made here, so the quoted id occurs in it exactly when it is a member.
    named = and_(
        listed,
        Model.visibility == Visibility.ACL,
        type_coerce(Model.acl, Text).contains(f'"{actor.organisation_id}"', autoescape=True),
    )
    return or_(public, named, ModelVersion.organisation_id == actor.organisation_id)


def find_version(session: Session, actor: Actor | None, name: str) -> ModelVersion:
    """Return one version by id (`ver_…`), `org/name@N`, or `org/name`: the newest that is not out of use.

    Raises:
        NotFoundError: there is none, or the actor may not see it.
    """
    query = select(ModelVersion).join(Model, Model.id == ModelVersion.model_id).where(visible_to(actor))
    parsed = parse_public_name(name)
    if parsed is None:
        query = query.where(ModelVersion.id == name)
    else:
        query = query.where(Model.name == parsed.model)
        if parsed.number is not None:
            query = query.where(ModelVersion.number == parsed.number)
    found = session.scalars(query.order_by(ModelVersion.number.desc())).all()
    if not found:
        raise NotFoundError.of("model version", name[:120])
    usable = [row for row in found if row.state is VersionState.LISTED] or [
        row for row in found if row.state in (VersionState.PRIVATE, VersionState.IN_REVIEW)
    ]
    return (usable or list(found))[0]


def find_model(session: Session, actor: Actor | None, name: str) -> Model:
    """Return one model by `org/name`, if the actor sees a version of it. Raises: NotFoundError."""
    return model_of(session, find_version(session, actor, name))


def model_of(session: Session, version: ModelVersion) -> Model:
    """Return the model of a version."""
    return session.get_one(Model, version.model_id)


def name_of(session: Session, version: ModelVersion) -> str:
    """Return the public name `org/name@N` of a version."""
    return f"{model_of(session, version).name}@{version.number}"


def find_owned_version(session: Session, actor: Actor, version_id: str) -> ModelVersion:
    """Return a version of the actor's organisation; operators reach any. Raises: NotFoundError."""
    version = session.get(ModelVersion, version_id)
    if version is None or (version.organisation_id != actor.organisation_id and actor.role is not Role.OPERATOR):
        raise NotFoundError.of("model version", version_id[:120])
    return version


def list_versions(session: Session, actor: Actor | None, name: str) -> list[ModelVersion]:
    """Return the versions of a model that the actor sees, newest first. Raises: NotFoundError if none."""
    model = find_model(session, actor, name)
    query = select(ModelVersion).join(Model, Model.id == ModelVersion.model_id)
    query = query.where(ModelVersion.model_id == model.id, visible_to(actor)).order_by(ModelVersion.number.desc())
    return list(session.scalars(query))


def list_in_state(session: Session, actor: Actor, state: VersionState) -> list[ModelVersion]:
    """Return versions in one state, oldest first: the own ones, all of them for operators and auditors."""
    query = select(ModelVersion).where(ModelVersion.state == state).order_by(ModelVersion.id).limit(500)
    if not actor.reads_all:
        query = query.where(ModelVersion.organisation_id == actor.organisation_id)
    return list(session.scalars(query))


def lineage_of(session: Session, version: ModelVersion) -> list[ModelVersion]:
    """Return the version, its base, the base's base ... up to the root."""
    chain = [version]
    while chain[-1].base_version_id is not None:
        if len(chain) > MAX_DEPTH:
            raise ConflictError(
                f"Version {version.id} has more than {MAX_DEPTH} ancestors; the limit is {MAX_DEPTH}.",
                f"版本 {version.id} 的血缘超过 {MAX_DEPTH} 层。",
            )
        chain.append(session.get_one(ModelVersion, chain[-1].base_version_id))
    return chain


def root_base(session: Session, version: ModelVersion) -> ModelVersion:
    """Return the base at the root of a version's lineage; a base is its own root."""
    return lineage_of(session, version)[-1]


def list_derivatives(session: Session, actor: Actor | None, version: ModelVersion) -> list[ModelVersion]:
    """Return what was made directly from a version, as far as the actor sees it."""
    query = select(ModelVersion).join(Model, Model.id == ModelVersion.model_id)
    query = query.where(ModelVersion.base_version_id == version.id, visible_to(actor))
    return list(session.scalars(query.order_by(ModelVersion.id.desc()).limit(100)))
