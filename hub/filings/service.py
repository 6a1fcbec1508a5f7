"""Records filings, withdrawals and decisions on derivatives; answers how a base stands.

It leaves evidence bytes to the artefact store (`evidence`) and their upload to `api`.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, NotFoundError
from hub.events.service import record_event
from hub.filings.rules import (
    BadFilingError,
    Standing,
    StandingState,
    check_filing,
    derive_standing,
    explain_standing,
    is_demo_filing,
)
from hub.filings.tables import DerivativeDecision, Filing, Ruling, Track
from hub.ids import new_id

__all__ = [
    "Standing",
    "StandingState",
    "decide_derivative",
    "derive_standing",
    "explain_standing",
    "file_base",
    "find_decision",
    "find_filing",
    "list_filings",
    "standing_of",
    "standings_of",
    "withdraw_filing",
]


def file_base(
    session: Session,
    actor: Actor,
    *,
    weights_digest: str,
    model_name: str,
    holder: str,
    number: str,
    body: str,
    authority: str,
    track: Track,
    scope: str,
    filed_at: datetime,
    valid_until: datetime | None,
    evidence_digest: str,
    evidence_name: str,
    now: datetime,
    production: bool = False,
) -> Filing:
    """Record the filing of a base model, known by its weights (operator).

    Raises:
        BadFilingError: a field breaks a rule. ConflictError: this number is recorded for these weights already.
    """
    actor.require(Role.OPERATOR)
    track = Track(track)
    check_filing(
        number=number,
        authority=authority,
        track=track,
        filed_at=filed_at,
        valid_until=valid_until,
        production=production,
    )
    filing = Filing(
        id=new_id("fil"),
        organisation_id=actor.organisation_id,
        weights_digest=weights_digest,
        model_name=model_name,
        holder=holder,
        number=number,
        body=body,
        authority=authority,
        track=track,
        scope=scope,
        filed_at=filed_at,
        valid_until=valid_until,
        evidence_digest=evidence_digest,
        evidence_name=evidence_name,
        demo=is_demo_filing(number, authority),
        recorded_by=actor.user_id,
        created_at=now,
    )
    _insert(session, filing)
    _record(session, "filing.recorded", filing, actor, now)
    return filing


def withdraw_filing(session: Session, actor: Actor, filing_id: str, *, reason: str, now: datetime) -> Filing:
    """Mark a filing withdrawn from now on (operator); a second time changes nothing.

    Raises:
        NotFoundError: no such filing.
    """
    actor.require(Role.OPERATOR)
    filing = find_filing(session, filing_id)
    if filing.withdrawn_at is None:
        filing.withdrawn_at = now
        filing.withdrawn_by = actor.user_id
        filing.withdrawn_reason = reason
        _record(session, "filing.withdrawn", filing, actor, now)
    return filing


def standing_of(session: Session, weights_digest: str, now: datetime) -> Standing:
    """Return how the base of these weights stands at `now`."""
    return derive_standing(session.scalars(select(Filing).where(Filing.weights_digest == weights_digest)), now)


def standings_of(session: Session, weights_digests: Iterable[str], now: datetime) -> dict[str, Standing]:
    """Return the standing of each of several bases with one query."""
    wanted = set(weights_digests)
    rows = list(session.scalars(select(Filing).where(Filing.weights_digest.in_(wanted))))
    return {digest: derive_standing([row for row in rows if row.weights_digest == digest], now) for digest in wanted}


def find_filing(session: Session, filing_id: str) -> Filing:
    """Return one filing. Raises: NotFoundError."""
    found = session.get(Filing, filing_id)
    if found is None:
        raise NotFoundError.of("filing", filing_id)
    return found


def list_filings(session: Session, weights_digest: str | None = None) -> list[Filing]:
    """Return filings, newest first; they are public."""
    query = select(Filing).order_by(Filing.id.desc())
    if weights_digest is not None:
        query = query.where(Filing.weights_digest == weights_digest)
    return list(session.scalars(query))


def decide_derivative(
    session: Session,
    actor: Actor,
    *,
    organisation_id: str,
    version_id: str,
    ruling: Ruling,
    reason: str,
    number: str | None,
    now: datetime,
) -> DerivativeDecision:
    """Record whether a derivative needs its own filing (operator); earlier decisions stay in the history.

    Raises:
        BadFilingError: filed or registered without a number, or not applicable with one; no reason.
    """
    actor.require(Role.OPERATOR)
    if (ruling is Ruling.NOT_APPLICABLE) != (number is None):
        raise BadFilingError(
            f"Ruling '{ruling}' {'takes no' if number else 'needs a'} number.",
            f"决定“{ruling}”{'不应填写' if number else '须填写'}编号。",
            field="number",
        )
    decision = DerivativeDecision(
        id=new_id("dec"),
        organisation_id=organisation_id,
        version_id=version_id,
        ruling=ruling,
        number=number,
        reason=reason,
        decided_by=actor.user_id,
        decided_at=now,
    )
    session.add(decision)
    record_event(
        session,
        "derivative.decided",
        version_id,
        organisation_id=organisation_id,
        actor_id=actor.user_id,
        now=now,
        ruling=ruling,
        number=number,
        reason=reason,
    )
    return decision


def find_decision(session: Session, version_id: str) -> DerivativeDecision | None:
    """Return the decision that counts for a version, or None if nobody decided yet."""
    query = select(DerivativeDecision).where(DerivativeDecision.version_id == version_id)
    return session.scalar(query.order_by(DerivativeDecision.id.desc()).limit(1))


def _insert(session: Session, filing: Filing) -> None:
    try:
        with session.begin_nested():
            session.add(filing)
    except IntegrityError as error:
        raise ConflictError(
            f"Filing {filing.number} is recorded for these weights already. Withdraw it first, or give another number.",
            f"备案 {filing.number} 已登记于该模型。请先撤销或更换编号。",
            field="number",
        ) from error


def _record(session: Session, topic: str, filing: Filing, actor: Actor, now: datetime) -> None:
    record_event(
        session,
        topic,
        filing.id,
        organisation_id=filing.organisation_id,
        actor_id=actor.user_id,
        now=now,
        weights_digest=filing.weights_digest,
        number=filing.number,
    )
