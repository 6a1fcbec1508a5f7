"""Ends allowances: by the gateway that spent them, or by the operator where the gateway is lost.

It leaves cutting them to `allowances` and releasing the tranche's money to `tranches`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import READERS, Actor, Role
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.metering.service import find_through_seq
from hub.orders.lost_usage import bill_witnessed
from hub.orders.rating import MAX_RATED, rate_usage
from hub.orders.usage_tables import Allowance, AllowanceState
from serving.contract import AllowanceClose


class AllowanceInUseError(ConflictError):
    """The gateway may still spend from the allowance."""

    code = "allowance_in_use"


def close_allowance(session: Session, close: AllowanceClose, now: datetime) -> Allowance:
    """Take a slice back once all its usage has arrived; the hub's own sum of the usage counts. Idempotent.

    Raises:
        NotFoundError: no such allowance.
        ConflictError: usage up to `through_seq` has not arrived yet.
    """
    allowance = _lock_allowance(session, close.allowance_id)
    if allowance.state is AllowanceState.CLOSED:
        return allowance
    arrived = find_through_seq(session, allowance.gateway_id)
    if close.through_seq > max(arrived, 0):
        raise ConflictError(
            f"Usage of gateway '{allowance.gateway_id}' has arrived up to {arrived}, the close names "
            f"{close.through_seq}; send the usage first.",
            f"网关“{allowance.gateway_id}”的用量只到 {arrived}，关闭请求为 {close.through_seq}，请先上报用量。",
            field="through_seq",
        )
    allowance.claimed_ufen, allowance.through_seq = close.spent_ufen, close.through_seq
    _close(session, allowance, now)
    if allowance.claimed_ufen != allowance.spent_ufen:
        _record(session, "allowance.disputed", allowance, actor_id=SYSTEM, now=now, claimed_ufen=allowance.claimed_ufen)
    return allowance


def end_lost_allowance(session: Session, actor: Actor, allowance_id: str, *, reason: str, now: datetime) -> Allowance:
    """Close the slice of a lost gateway on the usage that arrived and on what engines witnessed (operator).

    The rest of the money goes back to the firm. Usage that arrives later is refused as `allowance_closed` and kept
    apart. A closed allowance stays as it is.

    Raises:
        ForbiddenError: not the operator. NotFoundError: no such allowance.
        InvalidValueError: no reason. AllowanceInUseError: the gateway may still spend from it.
    """
    actor.require(Role.OPERATOR)
    if not reason.strip():
        raise InvalidValueError(
            "Closing for a lost gateway needs a reason; say what happened to it.",
            "代网关关闭额度须填写原因，请说明网关情况。",
            field="reason",
        )
    allowance = _lock_allowance(session, allowance_id)
    if allowance.state is AllowanceState.CLOSED:
        return allowance
    if now < allowance.expires_at:
        raise AllowanceInUseError(
            f"Gateway '{allowance.gateway_id}' may spend from allowance '{allowance.id}' until "
            f"{allowance.expires_at.isoformat()}; close it after that.",
            f"网关“{allowance.gateway_id}”在 {allowance.expires_at.isoformat()} 前仍可使用该额度，请届时再关闭。",
        )
    witnessed = bill_witnessed(session, allowance, now)
    _close(session, allowance, now)
    told = {"reason": reason.strip(), "witnessed_calls": witnessed}
    _record(session, "allowance.ended", allowance, actor_id=actor.user_id, now=now, **told)
    return allowance


def list_overdue_allowances(session: Session, actor: Actor, now: datetime) -> list[Allowance]:
    """Return the open slices past their time, oldest first: those of lost gateways are among them.

    Raises:
        ForbiddenError: neither operator nor auditor.
    """
    actor.require(*READERS)
    query = select(Allowance).where(Allowance.state == AllowanceState.OPEN, Allowance.expires_at <= now)
    return list(session.scalars(query.order_by(Allowance.expires_at, Allowance.id).limit(500)))


def _lock_allowance(session: Session, allowance_id: str) -> Allowance:
    allowance = session.get(Allowance, allowance_id, with_for_update=True, populate_existing=True)
    if allowance is None:
        raise NotFoundError.of("allowance", allowance_id)
    return allowance


def _close(session: Session, allowance: Allowance, now: datetime) -> None:
    while rate_usage(session, now, allowance_ids=[allowance.id]) == MAX_RATED:
        pass  # in portions, until every record of the slice is on a bill line
    allowance.state, allowance.closed_at = AllowanceState.CLOSED, now
    session.flush()


def _record(
    session: Session, topic: str, allowance: Allowance, *, actor_id: str, now: datetime, **payload: object
) -> None:
    record_event(
        session,
        topic,
        allowance.id,
        organisation_id=allowance.organisation_id,
        actor_id=actor_id,
        now=now,
        rated_ufen=allowance.spent_ufen,
        **payload,
    )
