"""Publishes price versions and split terms and finds the ones in force; the only writer of this room.

It leaves choosing a price for a sale to the rooms that sell.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ForbiddenError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from hub.prices.rules import PriceRefusedError, SplitPart, check_lines, check_parts, read_parts
from hub.prices.tables import PriceLine, PriceState, PriceSubject, PriceVersion, SplitTerms

DEFAULT = "default"
"""Subject of the platform's own price for everything of one kind."""


def publish_price(
    session: Session,
    actor: Actor | None,
    *,
    organisation_id: str,
    subject_kind: str,
    subject: str,
    lines: Mapping[str, tuple[int, int]],
    now: datetime,
    split_terms_id: str | None = None,
) -> PriceVersion:
    """Publish a price: `lines` maps a meter to (amount_fen, per_units). The newest active version is in force.

    `actor` None is the platform itself (installation).

    Raises:
        ForbiddenError: a person prices another organisation's things, or the platform default without being operator.
        PriceRefusedError: unknown kind or meter, or a figure out of range.
    """
    _check_publisher(actor, organisation_id, subject)
    kind = _read_kind(subject_kind)
    checked = check_lines(kind, lines)
    if split_terms_id is not None:
        find_split(session, split_terms_id)
    version = PriceVersion(
        id=new_id("prc"),
        organisation_id=organisation_id,
        subject_kind=kind,
        subject=subject,
        state=PriceState.ACTIVE,
        split_terms_id=split_terms_id,
        valid_from_at=now,
        published_by=actor.user_id if actor else SYSTEM,
        created_at=now,
    )
    version.lines = [
        PriceLine(price_version_id=version.id, meter=meter, amount_fen=amount, per_units=units)
        for meter, (amount, units) in checked.items()
    ]
    session.add(version)
    session.flush()
    _record(session, "price.published", version, actor, now)
    return version


def withdraw_price(session: Session, actor: Actor, price_version_id: str, *, now: datetime) -> PriceVersion:
    """Stop selling at a price; what is pinned to it goes on. Idempotent."""
    version = find_price_version(session, price_version_id)
    _check_publisher(actor, version.organisation_id, version.subject)
    if version.state is PriceState.ACTIVE:
        version.state = PriceState.WITHDRAWN
        _record(session, "price.withdrawn", version, actor, now)
    return version


def find_price_version(session: Session, price_version_id: str) -> PriceVersion:
    """Return a price version by id.

    Raises:
        NotFoundError: there is none.
    """
    version = session.get(PriceVersion, price_version_id)
    if version is None:
        raise NotFoundError.of("price version", price_version_id)
    return version


def price_lines(session: Session, price_version_id: str) -> list[PriceLine]:
    """Return the lines of a price version, by meter."""
    return list(find_price_version(session, price_version_id).lines)


def find_price(session: Session, subject_kind: str, subject: str, now: datetime) -> PriceVersion | None:
    """Return the newest active version of a subject's price that is in force, None without one."""
    return session.scalar(
        select(PriceVersion)
        .where(
            PriceVersion.subject_kind == _read_kind(subject_kind),
            PriceVersion.subject == subject,
            PriceVersion.state == PriceState.ACTIVE,
            PriceVersion.valid_from_at <= now,
        )
        .order_by(PriceVersion.valid_from_at.desc(), PriceVersion.id.desc())
        .limit(1)
    )


def default_price(session: Session, subject_kind: str, now: datetime) -> PriceVersion:
    """Return the platform's price for everything of a kind.

    Raises:
        NotFoundError: the operator has published none yet.
    """
    version = find_price(session, subject_kind, DEFAULT, now)
    if version is None:
        raise NotFoundError.of("default price for", subject_kind)
    return version


def list_prices(session: Session, *, subject_kind: str | None = None, subject: str | None = None) -> list[PriceVersion]:
    """Return active price versions, newest first. Prices are public."""
    query = select(PriceVersion).where(PriceVersion.state == PriceState.ACTIVE)
    if subject_kind is not None:
        query = query.where(PriceVersion.subject_kind == _read_kind(subject_kind))
    if subject is not None:
        query = query.where(PriceVersion.subject == subject)
    return list(session.scalars(query.order_by(PriceVersion.id.desc()).limit(500)))


def publish_split(
    session: Session, actor: Actor | None, *, organisation_id: str, parts: Sequence[Mapping[str, Any]], now: datetime
) -> SplitTerms:
    """Publish split terms of a seller: parts of {party, organisation_id, num, den}; the platform takes the rest.

    Raises:
        SplitRefusedError: shares out of range or above 1 together.
    """
    _check_publisher(actor, organisation_id, "")
    terms = SplitTerms(
        id=new_id("spl"),
        organisation_id=organisation_id,
        parts=check_parts(read_parts(parts)),
        published_by=actor.user_id if actor else SYSTEM,
        created_at=now,
    )
    session.add(terms)
    session.flush()
    return terms


def find_split(session: Session, split_terms_id: str) -> SplitTerms:
    """Return split terms by id.

    Raises:
        NotFoundError: there are none.
    """
    terms = session.get(SplitTerms, split_terms_id)
    if terms is None:
        raise NotFoundError.of("split terms", split_terms_id)
    return terms


def split_parts(session: Session, split_terms_id: str | None) -> list[SplitPart] | None:
    """Return the parts of split terms; None without terms: the seller then takes all."""
    return read_parts(find_split(session, split_terms_id).parts) if split_terms_id else None


def _check_publisher(actor: Actor | None, organisation_id: str, subject: str) -> None:
    if actor is None or actor.role is Role.OPERATOR:
        return
    if actor.role is Role.AUDITOR or actor.organisation_id != organisation_id or subject == DEFAULT:
        raise ForbiddenError(
            f"Only {organisation_id} or an operator may set this price. Sign in as its seller.",
            f"只有 {organisation_id} 或运营方可以定价。请以卖方身份登录。",
        )


def _read_kind(subject_kind: str) -> PriceSubject:
    try:
        return PriceSubject(subject_kind)
    except ValueError:
        known = ", ".join(PriceSubject)
        raise PriceRefusedError(
            f"Nothing of kind '{subject_kind}' has a price; kinds are {known}.",
            f"“{subject_kind}”没有价格；可用 {known}。",
            field="subject_kind",
        ) from None


def _record(session: Session, topic: str, version: PriceVersion, actor: Actor | None, now: datetime) -> None:
    record_event(
        session,
        topic,
        version.id,
        organisation_id=version.organisation_id,
        actor_id=actor.user_id if actor else SYSTEM,
        now=now,
        subject_kind=version.subject_kind,
        priced=version.subject,
    )
