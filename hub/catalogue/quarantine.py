"""Stops versions at once and releases them. It leaves withdrawal of filings to `filings`; both only ever mark rows."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.states import record_step
from hub.catalogue.tables import Block, ModelVersion, VersionState
from hub.catalogue.versions import find_owned_version
from hub.errors import ConflictError
from hub.ids import new_id
from serving.contract import BlockScope, InFlight, SubjectKind


def quarantine_version(
    session: Session,
    actor: Actor,
    version_id: str,
    *,
    reason_en: str,
    reason_zh: str,
    now: datetime,
) -> Block:
    """Stop a version for everybody and cut running requests (operator); of a base, everything made from it too.

    Raises:
        ConflictError: it is quarantined already.
    """
    actor.require(Role.OPERATOR)
    version = find_owned_version(session, actor, version_id)
    if version.state is VersionState.QUARANTINED:
        raise ConflictError("This version is quarantined already. Release it first.", "该版本已被隔离。")
    kind, subject = _name_subject(version)
    block = Block(
        id=new_id("blk"),
        organisation_id=version.organisation_id,
        subject_kind=kind,
        subject=subject,
        scope=BlockScope.ALL,
        in_flight=InFlight.CUT,
        code="quarantined",
        message_zh=reason_zh,
        message_en=reason_en,
        from_at=now,
        set_by=actor.user_id,
    )
    session.add(block)
    version.state_before, version.state = version.state, VersionState.QUARANTINED
    record_step(session, "version.quarantined", version, actor, now, reason=reason_en)
    return block


def release_version(session: Session, actor: Actor, version_id: str, *, reason: str, now: datetime) -> ModelVersion:
    """End a quarantine (operator): the version has the state it had before.

    Raises:
        ConflictError: it is not quarantined.
    """
    actor.require(Role.OPERATOR)
    version = find_owned_version(session, actor, version_id)
    before = version.state_before
    if before is None:
        raise ConflictError("This version is not quarantined.", "该版本未被隔离。")
    kind, subject = _name_subject(version)
    query = select(Block).where(
        Block.subject_kind == kind, Block.subject == subject, Block.code == "quarantined", Block.lifted_at.is_(None)
    )
    for block in session.scalars(query):
        block.lifted_at, block.lifted_by = now, actor.user_id
    version.state, version.state_before = before, None
    record_step(session, "version.released", version, actor, now, reason=reason)
    return version


def _name_subject(version: ModelVersion) -> tuple[SubjectKind, str]:
    """A root base is stopped by its weights, so that no other packing of them goes on."""
    if version.base_version_id is None:
        return SubjectKind.BASE, version.weights_digest
    return SubjectKind.ADAPTER, version.artifact_digest
