"""Signs people in and out: sessions by hashed token, failures counted per account and per address.

It leaves cookies and headers to the edge, API keys to `keys`.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.database import Sessions
from hub.errors import GuanmoError, InvalidValueError, NotSignedInError
from hub.events.service import record_event
from hub.organisations.passwords import hash_password, password_matches
from hub.organisations.rules import BadEmailError, BadPasswordError, normalise_email, normalise_password
from hub.organisations.tables import (
    Organisation,
    OrganisationState,
    SignInFailures,
    SignInSession,
    User,
    UserState,
)

SESSION_LENGTH = timedelta(days=7)
FAILURE_WINDOW = timedelta(minutes=5)
MAX_FAILURES = {"email": 10, "ip": 50}
"""Refused sign-ins in five minutes before the account or the address must wait. A plant shares one address."""

_MAY_ACT = (Organisation.state != OrganisationState.SUSPENDED) & (
    (User.role != Role.OPERATOR) | (Organisation.state == OrganisationState.VERIFIED)
)


class BadCredentialsError(NotSignedInError):
    """Unknown address, wrong password or suspended: the answer does not say which."""

    code = "bad_credentials"


class WrongPasswordError(InvalidValueError):
    """The present password, asked again before another is set, was wrong."""

    code = "wrong_password"


class TooManySignInsError(GuanmoError):
    """Too many failures from this account or address; the right password waits too."""

    code = "too_many_sign_ins"
    status = 429


@dataclass(frozen=True)
class SignIn:
    """A fresh session. `token` is shown this once."""

    token: str
    user: User
    organisation: Organisation
    expires_at: datetime


def sign_in(session: Session, *, email: str, password: str, now: datetime) -> SignIn:
    """Check a password and open a session, in the caller's transaction and without counting failures.

    For scripts and tests; whatever faces a network calls `sign_in_person`.
    """
    user = _find_active(session, email)
    _check_password(user.password_hash if user else None, password)
    return _open_session(session, email, now=now)


def sign_in_person(sessions: Sessions, *, email: str, password: str, ip: str, now: datetime) -> SignIn:
    """Check a password outside any transaction, count a failure, open a session on success.

    Raises:
        BadCredentialsError: the same for an unknown address and a wrong password.
        TooManySignInsError: with `retry_after_s`.
    """
    _prove_password(sessions, email=email, password=password, ip=ip, now=now)
    with sessions.write() as session:
        return _open_session(session, email, now=now)


def change_password(
    sessions: Sessions, actor: Actor, *, password: str, new_password: str, ip: str, now: datetime, token: str = ""
) -> User:
    """Set the actor's own password in place of the present one; every session but that of `token` ends.

    Raises:
        WrongPasswordError: it is not the present password. TooManySignInsError: it was tried too often.
        BadPasswordError: the new one breaks the rules or is the present one.
    """
    with sessions.read() as session:
        email = session.get_one(User, actor.user_id).email
    try:
        _prove_password(sessions, email=email, password=password, ip=ip, now=now)
    except BadCredentialsError as error:
        raise WrongPasswordError(
            "This is not your present password; type the one that you sign in with.",
            "当前密码不正确，请输入您登录时使用的密码。",
            field="present_password",
        ) from error
    if normalise_password(password) == _read_new(new_password):
        raise BadPasswordError(
            "The new password is the present one; choose another.",
            "新密码与当前密码相同，请另设。",
            field="new_password",
        )
    hashed = hash_password(new_password)
    with sessions.write() as session:
        user = session.get_one(User, actor.user_id)
        user.password_hash, user.one_time_password = hashed.text, False
        revoke_sessions(session, user.id, but=token)
        record_event(
            session, "user.password_set", user.id, organisation_id=user.organisation_id, actor_id=user.id, now=now
        )
        return user


def sign_out(session: Session, token: str) -> None:
    """End one session; an unknown or ended one is no error."""
    session.execute(delete(SignInSession).where(SignInSession.token_hash == _hash_token(token)))


def revoke_sessions(session: Session, user_id: str, *, but: str = "") -> None:
    """End every session of a person, but the one of a token where it is given."""
    kept = SignInSession.token_hash != _hash_token(but)
    session.execute(delete(SignInSession).where(SignInSession.user_id == user_id, kept))


def find_actor_by_token(session: Session, token: str, now: datetime) -> Actor | None:
    """Return who holds a session token; None if it is unknown, ended, expired, or its person or firm is stopped.

    An operator organisation that nobody has confirmed yet decides nothing.
    """
    if not token.startswith("gs_"):
        return None
    row = session.execute(
        select(User, Organisation.state)
        .join(SignInSession, SignInSession.user_id == User.id)
        .join(Organisation, Organisation.id == User.organisation_id)
        .where(
            SignInSession.token_hash == _hash_token(token),
            SignInSession.expires_at > now,
            User.state == UserState.ACTIVE,
            _MAY_ACT,
        )
    ).one_or_none()
    if row is None:
        return None
    user: User = row[0]
    return Actor(user_id=user.id, organisation_id=user.organisation_id, role=user.role, language=user.language)


def _prove_password(sessions: Sessions, *, email: str, password: str, ip: str, now: datetime) -> None:
    buckets = _name_buckets(email, ip)
    with sessions.read() as session:
        _check_failures(session, buckets, now)
        user = _find_active(session, email)
    try:
        _check_password(user.password_hash if user else None, password)
    except BadCredentialsError:
        with sessions.write() as session:
            _count_failure(session, buckets, now)
        raise


def _read_new(password: str) -> str:
    """Return a new password as it is kept; its faults are those of the field `new_password`."""
    try:
        return normalise_password(password)
    except BadPasswordError as error:
        error.field = "new_password"
        raise


def _find_active(session: Session, email: str) -> User | None:
    try:
        email = normalise_email(email)
    except BadEmailError:
        return None  # an address that cannot exist gets the same answer as an unknown one
    query = select(User).join(Organisation, Organisation.id == User.organisation_id)
    return session.scalar(query.where(User.email == email, User.state == UserState.ACTIVE, _MAY_ACT))


def _check_password(stored: str | None, password: str) -> None:
    try:
        password = normalise_password(password)
    except BadPasswordError:
        password, stored = "", None
    if not password_matches(stored, password):
        raise BadCredentialsError(
            "E-mail or password is wrong. Check both; after 10 failures in 5 minutes the account waits.",
            "邮箱或密码不正确。5 分钟内失败 10 次后需要等待。",
        )


def _open_session(session: Session, email: str, *, now: datetime) -> SignIn:
    user = _find_active(session, email)
    if user is None:
        raise BadCredentialsError("E-mail or password is wrong. Check both.", "邮箱或密码不正确。")
    session.execute(delete(SignInSession).where(SignInSession.user_id == user.id, SignInSession.expires_at <= now))
    token = f"gs_{secrets.token_urlsafe(32)}"
    row = SignInSession(
        token_hash=_hash_token(token),
        organisation_id=user.organisation_id,
        user_id=user.id,
        created_at=now,
        expires_at=now + SESSION_LENGTH,
    )
    session.add(row)
    organisation = session.get_one(Organisation, user.organisation_id)
    return SignIn(token=token, user=user, organisation=organisation, expires_at=row.expires_at)


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _name_buckets(email: str, ip: str) -> list[str]:
    # The address is hashed so that the table holds no list of what people typed.
    typed = hashlib.sha256(email.strip().lower().encode("utf-8", "surrogatepass")).hexdigest()
    return [f"email:{typed}", f"ip:{ip}"]


def _check_failures(session: Session, buckets: list[str], now: datetime) -> None:
    for bucket in buckets:
        row = session.get(SignInFailures, bucket)
        if row is None or row.window_from_at + FAILURE_WINDOW <= now:
            continue
        limit = MAX_FAILURES[bucket.partition(":")[0]]
        if row.failures >= limit:
            wait_s = int((row.window_from_at + FAILURE_WINDOW - now).total_seconds()) + 1
            raise TooManySignInsError(
                f"{row.failures} failed sign-ins in 5 minutes; the limit is {limit}. Try again in {wait_s} s.",
                f"5 分钟内登录失败 {row.failures} 次（上限 {limit}）。请 {wait_s} 秒后再试。",
                limit=limit,
                retry_after_s=wait_s,
            )


def _count_failure(session: Session, buckets: list[str], now: datetime) -> None:
    for bucket in buckets:
        row = session.get(SignInFailures, bucket)
        if row is None or row.window_from_at + FAILURE_WINDOW <= now:
            session.merge(SignInFailures(bucket=bucket, failures=1, window_from_at=now))
        else:
            row.failures += 1
