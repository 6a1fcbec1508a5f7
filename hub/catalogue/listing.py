"""Sets what a version costs, who may see it, its flags and its end. It leaves approval to `reviewing`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.states import record_step, require_state
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.catalogue.versions import find_owned_version, model_of, root_base
from hub.errors import InvalidValueError
from hub.organisations.service import find_organisation, require_verified
from hub.prices.service import publish_price, publish_split
from serving.contract import Visibility

SELLABLE = (VersionState.IN_REVIEW, VersionState.LISTED, VersionState.PRIVATE)


def price_version(
    session: Session,
    actor: Actor,
    version_id: str,
    *,
    lines: Mapping[str, tuple[int, int]],
    parts: Sequence[Mapping[str, Any]],
    now: datetime,
) -> ModelVersion:
    """Set what calls of a version cost and how the revenue splits; the platform takes what the parts leave.

    Raises:
        PriceRefusedError, SplitRefusedError: a figure breaks a rule. ConflictError: out of use.
        NotVerifiedError: the seller is not verified.
    """
    version = find_owned_version(session, actor, version_id)
    seller = version.organisation_id
    require_verified(session, seller)
    require_state(version, SELLABLE, "priced")
    _check_parties(session, version, parts)
    split = publish_split(session, actor, organisation_id=seller, parts=parts, now=now) if parts else None
    price = publish_price(
        session,
        actor,
        organisation_id=seller,
        subject_kind="version",
        subject=version.id,
        lines=lines,
        split_terms_id=split.id if split else None,
        now=now,
    )
    version.price_version_id = price.id
    version.split_terms_id = split.id if split else None
    record_step(session, "version.priced", version, actor, now, price_version_id=price.id)
    return version


def set_access(
    session: Session, actor: Actor, version_id: str, *, visibility: Visibility, acl: Sequence[str], now: datetime
) -> Model:
    """Say who may see and call the listed versions of a model: everybody, named organisations, or nobody else.

    Raises:
        InvalidValueError: a name list without `acl`, or an unknown organisation.
    """
    version = find_owned_version(session, actor, version_id)
    if bool(acl) != (visibility is Visibility.ACL):
        raise InvalidValueError(
            f"Visibility '{visibility}' {'takes no' if acl else 'needs an'} 'acl' of organisation ids.",
            f"可见性“{visibility}”与 acl 不一致。",
            field="acl",
        )
    model = model_of(session, version)
    model.acl = sorted({find_organisation(session, item).id for item in acl})
    model.visibility = visibility
    record_step(session, "model.access_changed", version, actor, now, visibility=visibility)
    return model


def retire_version(
    session: Session,
    actor: Actor,
    version_id: str,
    *,
    retires_at: datetime,
    successor: str | None = None,
    now: datetime,
) -> ModelVersion:
    """End a version at a time; from then on neither it nor anything made from it is served.

    `successor` is the public name that callers are sent to; without one a newer version is named where there is one.

    Raises:
        ConflictError: it is quarantined or retired already.
    """
    version = find_owned_version(session, actor, version_id)
    require_state(version, SELLABLE, "retired")
    version.retires_at, version.successor = retires_at, successor
    if retires_at <= now:
        version.state = VersionState.RETIRED
    record_step(session, "version.retired", version, actor, now, retires_at=retires_at.isoformat(), successor=successor)
    return version


def set_flags(
    session: Session,
    actor: Actor,
    version_id: str,
    *,
    two_high_evidence: str | None,
    manufacturing_base_evidence: str | None,
    now: datetime,
) -> Model:
    """Set the flags the authority counts, each by its evidence; None clears one (operator)."""
    actor.require(Role.OPERATOR)
    version = find_owned_version(session, actor, version_id)
    model = model_of(session, version)
    model.two_high, model.two_high_evidence = two_high_evidence is not None, two_high_evidence
    model.manufacturing_base = manufacturing_base_evidence is not None
    model.manufacturing_base_evidence = manufacturing_base_evidence
    record_step(session, "model.flagged", version, actor, now)
    return model


def mark_endpoint(session: Session, version_id: str, *, deployed: bool) -> None:
    """Note whether a model has an endpoint, for the search facet; `deployments` calls it when an alias flips."""
    model_of(session, session.get_one(ModelVersion, version_id)).has_endpoint = deployed


def _check_parties(session: Session, version: ModelVersion, parts: Sequence[Mapping[str, Any]]) -> None:
    """Money of a sale goes to its seller and to the owner of its base, to nobody else a seller might name."""
    allowed = {"integrator": version.organisation_id, "base_owner": root_base(session, version).organisation_id}
    for index, part in enumerate(parts):
        expected = allowed.get(part["party"])
        if part["party"] in ("pool", "platform") or part.get("organisation_id") == expected:
            continue
        raise InvalidValueError(
            f"Split part {index}: '{part['party']}' is {part.get('organisation_id')}, it should be {expected}.",
            f"分成第 {index} 项：“{part['party']}”应为 {expected}。",
            field=f"split[{index}].organisation_id",
        )
