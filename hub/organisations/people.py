"""Writes the people of organisations. It leaves the organisations themselves to `service`, sessions to `signin`."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, InvalidValueError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from hub.organisations.passwords import HashedPassword, hash_password
from hub.organisations.rules import PUBLIC_KINDS, check_role, normalise_email
from hub.organisations.signin import revoke_sessions
from hub.organisations.tables import Organisation, User, UserState

MAX_USERS = 500
LANGUAGES = ("zh", "en")


def create_user(
    session: Session,
    *,
    organisation_id: str,
    email: str,
    name: str,
    password: str | HashedPassword,
    role: Role,
    now: datetime,
    language: str = "zh",
    actor_id: str = SYSTEM,
    one_time_password: bool = False,
) -> User:
    """Add a person; the first of an organisation manages its people.

    A plain `password` is hashed here (about 30 ms); give a `HashedPassword` where the transaction must stay short.
    `one_time_password`: somebody else knows it, so the person is nobody's second pair of eyes before setting another.

    Raises:
        BadEmailError, BadPasswordError, BadRoleError: a value breaks its rule.
        ConflictError: the address is taken, or the organisation has 500 people.
    """
    organisation = session.get(Organisation, organisation_id)
    if organisation is None:
        raise NotFoundError.of("organisation", organisation_id)
    people = list_users(session, organisation_id)
    if len(people) >= MAX_USERS:
        raise ConflictError(
            f"This organisation has {len(people)} people; the limit is {MAX_USERS}. Remove one first.",
            f"本机构已有 {len(people)} 人，上限 {MAX_USERS}。请先移除。",
        )
    user = User(
        id=new_id("usr"),
        organisation_id=organisation.id,
        email=normalise_email(email),
        name=name,
        password_hash=(hash_password(password) if isinstance(password, str) else password).text,
        one_time_password=one_time_password,
        added_by=_find_adder(session, actor_id, organisation),
        role=check_role(organisation.kind, role),
        manages=not people,
        language=check_language(language),
        state=UserState.ACTIVE,
        created_at=now,
    )
    _insert_user(session, user)
    record_event(
        session,
        "user.created",
        user.id,
        organisation_id=organisation.id,
        actor_id=actor_id,
        now=now,
        role=role,
        one_time_password=one_time_password,
    )
    return user


def remove_user(session: Session, actor: Actor, user_id: str, *, now: datetime) -> None:
    """Remove a person of the actor's own organisation: every session of theirs ends now; their keys stay the firm's.

    Raises:
        NotFoundError: no such person in the own organisation.
        ConflictError: the person manages the organisation.
    """
    user = session.get(User, user_id)
    if user is None or user.organisation_id != actor.organisation_id or user.state is UserState.REMOVED:
        raise NotFoundError.of("user", user_id)
    if user.manages:
        raise ConflictError(
            f"'{user.name}' manages this organisation and cannot be removed. Ask the operator.",
            f"“{user.name}”是本机构管理员，不能移除。请联系运营方。",
        )
    user.state = UserState.REMOVED
    revoke_sessions(session, user.id)
    record_event(
        session, "user.removed", user.id, organisation_id=user.organisation_id, actor_id=actor.user_id, now=now
    )


def set_language(session: Session, actor: Actor, language: str) -> User:
    """Set the language of the actor's pages and messages, `zh` or `en`."""
    user = find_user(session, actor.user_id)
    user.language = check_language(language)
    return user


def check_language(language: str) -> str:
    """Return `zh` or `en`.

    Raises:
        InvalidValueError: any other.
    """
    if language in LANGUAGES:
        return language
    raise InvalidValueError(
        f"Language '{language[:20]}' is unknown; use zh or en.", "语言只支持 zh 或 en。", field="language"
    )


def require_member(actor: Actor, organisation_id: str) -> None:
    """Pass if it is the actor's own organisation. Raises: NotFoundError."""
    if actor.organisation_id != organisation_id:
        raise NotFoundError.of("organisation", organisation_id)


def require_manager(session: Session, actor: Actor, organisation_id: str) -> None:
    """Pass if the actor manages this organisation's people.

    Raises:
        NotFoundError: it is another's organisation. ForbiddenError: the actor does not manage the own one.
    """
    require_member(actor, organisation_id)
    if not find_user(session, actor.user_id).manages:
        raise ForbiddenError(
            "Only the person who manages your organisation may add or remove people. Ask them.",
            "只有本机构管理员可以增减人员。",
        )


def find_user(session: Session, user_id: str) -> User:
    """Return one person. Raises: NotFoundError."""
    found = session.get(User, user_id)
    if found is None:
        raise NotFoundError.of("user", user_id)
    return found


def list_users(session: Session, organisation_id: str) -> list[User]:
    """Return the active people of an organisation, oldest first."""
    query = select(User).where(User.organisation_id == organisation_id, User.state == UserState.ACTIVE)
    return list(session.scalars(query.order_by(User.id)))


def _find_adder(session: Session, actor_id: str, organisation: Organisation) -> str | None:
    """Return who added a person; nobody where another organisation enters a firm, which acts by itself."""
    adder = session.get(User, actor_id)
    if adder is None or (adder.organisation_id != organisation.id and organisation.kind in PUBLIC_KINDS):
        return None
    return adder.id


def _insert_user(session: Session, user: User) -> None:
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        raise ConflictError(
            f"'{user.email}' has an account already. Sign in, or use another address.",
            f"“{user.email}”已有账号。请登录或更换邮箱。",
            field="email",
        ) from error
