"""Writes organisations; offers the functions of `people`, `signin` and `keys` under its own name too.

It leaves money and models to the rooms above.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.events.tables import Event
from hub.ids import new_id
from hub.organisations.keys import create_key, find_actor_by_key, find_budget, list_keys, revoke_key
from hub.organisations.people import (
    create_user,
    find_user,
    list_users,
    remove_user,
    require_manager,
    require_member,
    set_language,
)
from hub.organisations.rules import OrganisationKind, check_slug, check_uscc, is_demo_uscc, suggest_slug
from hub.organisations.second_person import require_second_person
from hub.organisations.signin import (
    SignIn,
    change_password,
    find_actor_by_token,
    sign_in,
    sign_in_person,
    sign_out,
)
from hub.organisations.tables import Organisation, OrganisationState

__all__ = [
    "SignIn",
    "change_password",
    "create_key",
    "create_organisation",
    "create_user",
    "find_actor_by_key",
    "find_actor_by_token",
    "find_budget",
    "find_organisation",
    "find_user",
    "list_keys",
    "list_organisations",
    "list_users",
    "mark_verified",
    "remove_user",
    "require_manager",
    "require_member",
    "require_second_person",
    "require_verified",
    "revoke_key",
    "set_language",
    "sign_in",
    "sign_in_person",
    "sign_out",
    "suspend_organisation",
    "verify_organisation",
]


class NotVerifiedError(ForbiddenError):
    """The organisation is not verified, so it may look around but not order."""

    code = "organisation_not_verified"


def create_organisation(
    session: Session,
    *,
    name: str,
    uscc: str,
    kind: OrganisationKind,
    now: datetime,
    slug: str | None = None,
    production: bool = False,
    actor_id: str = SYSTEM,
) -> Organisation:
    """Add an organisation, pending until an operator verifies it.

    Raises:
        BadCreditCodeError, BadSlugError: the code or short name breaks its rule.
        ConflictError: the code or short name is taken.
    """
    uscc = check_uscc(uscc, production=production)
    organisation = Organisation(
        id=new_id("org"),
        slug=check_slug(slug or suggest_slug(name, uscc), reserved=kind is OrganisationKind.OPERATOR),
        name=name,
        uscc=uscc,
        kind=kind,
        state=OrganisationState.PENDING,
        demo=is_demo_uscc(uscc),
        created_at=now,
    )
    _insert_organisation(session, organisation)
    record_event(
        session,
        "organisation.created",
        organisation.id,
        organisation_id=organisation.id,
        actor_id=actor_id,
        now=now,
        kind=kind,
        uscc=uscc,
    )
    return organisation


def verify_organisation(session: Session, actor: Actor, organisation_id: str, *, now: datetime) -> Organisation:
    """Let an operator confirm that the code belongs to the firm; a second time changes nothing.

    Raises:
        FourEyesError: it is an operator organisation that the actor added: one person would be both of every two.
    """
    actor.require(Role.OPERATOR)
    organisation = find_organisation(session, organisation_id)
    if organisation.kind is OrganisationKind.OPERATOR:
        added = select(Event.actor_id).where(Event.subject == organisation_id, Event.topic == "organisation.created")
        require_second_person(
            session,
            actor,
            session.scalars(added),
            en="You added this operator organisation; another operator confirms it.",
            zh="该运营机构由您添加，须由另一名运营人员确认。",
        )
    return mark_verified(session, organisation_id, by=actor.user_id, now=now)


def mark_verified(session: Session, organisation_id: str, *, by: str, now: datetime) -> Organisation:
    """Mark an organisation verified by a person's id or `system` (installation makes the operator's own so)."""
    organisation = find_organisation(session, organisation_id)
    if organisation.state is OrganisationState.VERIFIED:
        return organisation
    organisation.state = OrganisationState.VERIFIED
    organisation.verified_by = by
    organisation.verified_at = now
    _record(session, "organisation.verified", organisation, by, now)
    return organisation


def suspend_organisation(
    session: Session, actor: Actor, organisation_id: str, *, reason: str, now: datetime
) -> Organisation:
    """Stop everybody of an organisation from signing in; verifying it again lifts this."""
    actor.require(Role.OPERATOR)
    organisation = find_organisation(session, organisation_id)
    if organisation.id == actor.organisation_id:
        raise ConflictError(
            "You cannot suspend your own organisation. Ask another operator organisation.", "不能停用本机构。"
        )
    organisation.state = OrganisationState.SUSPENDED
    record_event(
        session,
        "organisation.suspended",
        organisation.id,
        organisation_id=organisation.id,
        actor_id=actor.user_id,
        now=now,
        reason=reason,
    )
    return organisation


def require_verified(session: Session, organisation_id: str) -> Organisation:
    """Return the organisation if it may order.

    Raises:
        NotVerifiedError: it is pending or suspended.
    """
    organisation = find_organisation(session, organisation_id)
    if organisation.state is not OrganisationState.VERIFIED:
        raise NotVerifiedError(
            f"Organisation '{organisation.name}' is {organisation.state}; ordering needs a verified one. "
            "Ask the operator to check your credit code.",
            f"机构“{organisation.name}”尚未通过核验（{organisation.state}），不能下单。请联系运营方核验信用代码。",
            state=str(organisation.state),
        )
    return organisation


def find_organisation(session: Session, organisation_id: str) -> Organisation:
    """Return one organisation. Raises: NotFoundError."""
    found = session.get(Organisation, organisation_id)
    if found is None:
        raise NotFoundError.of("organisation", organisation_id)
    return found


def list_organisations(session: Session, state: OrganisationState | None = None) -> list[Organisation]:
    """Return organisations, newest first; the caller must be allowed to see them all."""
    query = select(Organisation).order_by(Organisation.id.desc())
    if state is not None:
        query = query.where(Organisation.state == state)
    return list(session.scalars(query))


def _insert_organisation(session: Session, organisation: Organisation) -> None:
    try:
        with session.begin_nested():
            session.add(organisation)
    except IntegrityError as error:
        taken = session.scalar(select(Organisation.slug).where(Organisation.uscc == organisation.uscc))
        if taken:
            raise ConflictError(
                f"Code {organisation.uscc} is registered already. Sign in, or ask its manager to add you.",
                f"信用代码 {organisation.uscc} 已注册。请登录，或联系本单位管理员。",
                field="uscc",
            ) from error
        raise ConflictError(
            f"Short name '{organisation.slug}' is taken. Choose another.",
            f"短名“{organisation.slug}”已被占用，请另选。",
            field="slug",
        ) from error


def _record(session: Session, topic: str, organisation: Organisation, by: str, now: datetime) -> None:
    record_event(session, topic, organisation.id, organisation_id=organisation.id, actor_id=by, now=now)
