"""Derives whether a version may be called, by whom and why not. Nothing here is stored (DESIGN.md, decision 13).

It leaves enforcement to the gateway, which gets the same facts in its snapshot, and orders to `orders`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.catalogue.rules import OWN_STATES
from hub.catalogue.tables import Block, Model, ModelVersion, VersionState
from hub.catalogue.versions import lineage_of, model_of
from hub.filings.service import Standing, StandingState, explain_standing, standing_of
from serving.contract import BlockScope, SubjectKind, Visibility


@dataclass(frozen=True)
class Servability:
    """The answer for one version and one caller; `code` is `ok` or the reason."""

    ok: bool
    code: str
    en: str
    zh: str


_OK = Servability(True, "ok", "May be called.", "可以调用。")
_CODES = {
    StandingState.NEVER: "base_not_filed",
    StandingState.WITHDRAWN: "filing_withdrawn",
    StandingState.EXPIRED: "filing_expired",
}


def may_serve(session: Session, version: ModelVersion, caller_organisation_id: str, now: datetime) -> Servability:
    """Return whether an organisation may call a version now.

    The owner may call without a valid filing; anybody else needs a listed version, the model's leave, and a valid
    filing of the root base.
    """
    chain = lineage_of(session, version)
    model = model_of(session, version)
    owner = caller_organisation_id == version.organisation_id
    blocks = find_blocks(session, chain, model, caller_organisation_id, now=now)
    standing = standing_of(session, chain[-1].weights_digest, now)
    return (
        _check_state(version, owner)
        or _check_blocks(blocks, owner)
        or _check_retired(chain, now)
        or _check_leave(version, model, caller_organisation_id, owner)
        or _check_filing(standing, owner)
        or _OK
    )


def find_blocks(
    session: Session, chain: Iterable[ModelVersion], model: Model, caller_organisation_id: str, *, now: datetime
) -> list[Block]:
    """Return the blocks in force on any ancestor, on the model, its owner or the caller."""
    links = list(chain)
    digests = [links[-1].weights_digest, *(link.artifact_digest for link in links)]
    organisations = (model.organisation_id, caller_organisation_id)
    query = select(Block).where(
        Block.lifted_at.is_(None),
        Block.from_at <= now,
        or_(
            Block.subject_kind.in_((SubjectKind.BASE, SubjectKind.ADAPTER)) & Block.subject.in_(digests),
            (Block.subject_kind == SubjectKind.MODEL) & Block.subject.in_([model.name, *(link.id for link in links)]),
            (Block.subject_kind == SubjectKind.ORGANISATION) & Block.subject.in_(organisations),
        ),
    )
    return list(session.scalars(query.order_by(Block.id)))


def list_blocks(session: Session, now: datetime) -> list[Block]:
    """Return every block in force, for the snapshot."""
    query = select(Block).where(Block.lifted_at.is_(None), Block.from_at <= now)
    return list(session.scalars(query.order_by(Block.id)))


def _check_state(version: ModelVersion, owner: bool) -> Servability | None:
    if version.state is VersionState.QUARANTINED:
        return Servability(
            False,
            "quarantined",
            "This version is quarantined: the operator stopped it. Use another version.",
            "该版本已被运营方隔离，请使用其他版本。",
        )
    if version.state is VersionState.RETIRED or (owner and version.state in OWN_STATES):
        return None
    if version.state is VersionState.LISTED:
        return None
    return Servability(
        False,
        "not_listed",
        f"This version is '{version.state}', so only its owner may use it. Ask the owner to list it.",
        f"该版本状态为“{version.state}”，仅所有者可用。请联系所有者上架。",
    )


def _check_blocks(blocks: Iterable[Block], owner: bool) -> Servability | None:
    for block in blocks:
        if block.scope is BlockScope.ALL or not owner:
            return Servability(False, block.code, block.message_en, block.message_zh)
    return None


def _check_retired(chain: Iterable[ModelVersion], now: datetime) -> Servability | None:
    for link in chain:
        if link.state is VersionState.RETIRED or (link.retires_at is not None and link.retires_at <= now):
            ended = link.retires_at.date().isoformat() if link.retires_at else ""
            return Servability(
                False,
                "retired",
                f"This version or its base was retired on {ended}. Use a newer version.",
                f"该版本或其基础模型已于 {ended} 退役，请使用新版本。",
            )
    return None


def _check_leave(version: ModelVersion, model: Model, caller: str, owner: bool) -> Servability | None:
    named = model.visibility is Visibility.ACL and caller in model.acl
    if owner or model.visibility is Visibility.PUBLIC or named:
        return None
    return Servability(
        False, "not_listed", "This model is its owner's only. Ask the owner for access.", "该模型仅所有者可用。"
    )


def _check_filing(standing: Standing, owner: bool) -> Servability | None:
    if owner or standing.state is StandingState.VALID:
        return None
    en, zh = explain_standing(standing)
    return Servability(False, _CODES[standing.state], en, zh)
