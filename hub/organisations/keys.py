"""Makes, lists and revokes API keys; a key's text is shown once and kept only as a MAC.

It leaves admission by key to the gateway, which reads the same fields from the snapshot.
"""

import hmac
import ipaddress
import re
import secrets
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.organisations.tables import ApiKey, Budget, Organisation, OrganisationState, User, UserState
from serving.contract import Peppers, key_mac

MAX_KEYS = 100
SCOPES = ("inference",)
_KEY = re.compile(r"gm_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


def create_key(
    session: Session,
    actor: Actor,
    *,
    name: str,
    models: list[str] | None = None,
    expires_at: datetime | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    cost_centre: str | None = None,
    budget_fen: int | None = None,
    ip_ranges: list[str] | None = None,
    pepper: bytes,
    pepper_id: str,
    now: datetime,
) -> tuple[ApiKey, str]:
    """Return a new key's row and its text `gm_<32 hex>_<secret>`; no or empty `models` is every model.

    Raises:
        ForbiddenError: an auditor asks. InvalidValueError: expiry in the past, bad address range, limit below 1.
        ConflictError: 100 keys live already.
    """
    if actor.role is Role.AUDITOR:
        raise ForbiddenError("An auditor reads and writes nothing, so has no key.", "审计员只读，不能创建密钥。")
    _check_limits(expires_at, {"rpm": rpm, "tpm": tpm, "concurrency": concurrency, "budget_fen": budget_fen}, now)
    _check_quota(session, actor.organisation_id)
    budget = _create_budget(session, actor, name, budget_fen, now) if budget_fen is not None else None
    key_id = new_id("key")
    text = f"gm_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"
    row = ApiKey(
        id=key_id,
        organisation_id=actor.organisation_id,
        name=name,
        last4=text[-4:],
        mac=key_mac(pepper, text),
        pepper_id=pepper_id,
        cost_centre=cost_centre,
        scopes=list(SCOPES),
        models=models or None,
        ip_ranges=[str(_read_range(item)) for item in ip_ranges] if ip_ranges else None,
        expires_at=expires_at,
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        budget_id=budget.id if budget else None,
        created_by=actor.user_id,
        created_at=now,
    )
    session.add(row)
    session.flush()
    _record(session, "key.created", row, actor, now)
    return row, text


def revoke_key(session: Session, actor: Actor, key_id: str, *, now: datetime) -> ApiKey:
    """Revoke a key of the own organisation; a second time changes nothing.

    Raises:
        NotFoundError: no such key, or another organisation's. ForbiddenError: an auditor asks.
    """
    row = session.get(ApiKey, key_id)
    if row is None or row.organisation_id != actor.organisation_id:
        raise NotFoundError.of("key", key_id)
    if row.revoked_at is None:
        row.revoked_at = now
        _record(session, "key.revoked", row, actor, now)
    return row


def list_keys(session: Session, actor: Actor) -> list[ApiKey]:
    """Return the organisation's keys, newest first, revoked ones included."""
    query = select(ApiKey).where(ApiKey.organisation_id == actor.organisation_id).order_by(ApiKey.id.desc())
    return list(session.scalars(query))


def count_keys(session: Session, now: datetime) -> dict[str, int]:
    """Return how many keys live under each pepper, by the pepper's id."""
    alive = ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    query = select(ApiKey.pepper_id, func.count()).where(*alive).group_by(ApiKey.pepper_id)
    return {pepper_id: count for pepper_id, count in session.execute(query)}


def find_actor_by_key(session: Session, key: str, peppers: Peppers, now: datetime) -> Actor | None:
    """Return the maker of a live key as the actor; None for any other text."""
    match = _KEY.fullmatch(key)
    row = session.get(ApiKey, f"key_{match.group(1)}") if match else None
    if row is None or not hmac.compare_digest(row.mac, key_mac(peppers.of(row.pepper_id), key)):
        return None
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    user = session.get_one(User, row.created_by)
    organisation = session.get_one(Organisation, row.organisation_id)
    if user.state is not UserState.ACTIVE or organisation.state is OrganisationState.SUSPENDED:
        return None
    return Actor(user_id=user.id, organisation_id=user.organisation_id, role=user.role, language=user.language)


def find_budget(session: Session, budget_id: str) -> Budget:
    """Return one budget. Raises: NotFoundError."""
    found = session.get(Budget, budget_id)
    if found is None:
        raise NotFoundError.of("budget", budget_id)
    return found


def _check_limits(expires_at: datetime | None, limits: dict[str, int | None], now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidValueError(
            f"The key would have expired at {expires_at.isoformat()}. Give a later time.",
            "密钥有效期已过，请填写将来的时间。",
            field="expires_at",
        )
    for field, limit in limits.items():
        if limit is not None and limit < 1:
            raise InvalidValueError(
                f"{field} is {limit}; the least is 1. Leave it out for no limit.",
                f"{field} 为 {limit}，最小为 1；不限请留空。",
                field=field,
            )


def _check_quota(session: Session, organisation_id: str) -> None:
    query = select(func.count()).where(ApiKey.organisation_id == organisation_id, ApiKey.revoked_at.is_(None))
    live = session.scalar(query) or 0
    if live >= MAX_KEYS:
        raise ConflictError(
            f"{live} keys are live; the limit is {MAX_KEYS}. Revoke one first.",
            f"已有 {live} 个有效密钥，上限 {MAX_KEYS}。请先停用。",
            limit=MAX_KEYS,
        )


def _read_range(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidValueError(
            f"'{text[:60]}' is not an address range such as 10.0.0.0/8.",
            f"“{text[:60]}”不是有效网段（如 10.0.0.0/8）。",
            field="ip_ranges",
        ) from error


def _create_budget(session: Session, actor: Actor, name: str, limit_fen: int, now: datetime) -> Budget:
    budget = Budget(
        id=new_id("bud"),
        organisation_id=actor.organisation_id,
        name=name,
        limit_fen=limit_fen,
        set_by=actor.user_id,
        created_at=now,
    )
    session.add(budget)
    session.flush()
    return budget


def _record(session: Session, topic: str, row: ApiKey, actor: Actor, now: datetime) -> None:
    record_event(
        session, topic, row.id, organisation_id=row.organisation_id, actor_id=actor.user_id, now=now, last4=row.last4
    )
