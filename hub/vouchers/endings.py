"""How a grant's money ends: it lapses, is revoked, or a correction takes settled money back.

It leaves awards to `hub.vouchers.awards` and what the authority has paid for to `hub.claims`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import InvalidValueError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ledger.movements import move
from hub.ledger.rules import derive_id
from hub.ledger.service import Posted, post_group
from hub.ledger.tables import Account
from hub.vouchers.programmes import fund_account
from hub.vouchers.rules import GrantEndedError
from hub.vouchers.tables import ClawBack, Grant, GrantState

RETURNED = "grant_returned"
"""Code of the transfer that gives what is left of an ended grant back to its fund."""
MAX_ENDED = 100


def revoke_grant(session: Session, actor: Actor, grant_id: str, *, reason: str, now: datetime) -> Grant:
    """Stop a grant and return what is left to its fund. What is held still settles under its pinned rules.

    Raises:
        GrantEndedError: it ended before. InvalidValueError: no reason.
    """
    actor.require(Role.OPERATOR)
    grant = _lock(session, grant_id)
    if not reason.strip():
        raise InvalidValueError("A revocation needs its reason.", "撤销授予须说明理由。", field="reason")
    if grant.state is not GrantState.ACTIVE:
        raise GrantEndedError(
            f"Grant '{grant.id}' is {grant.state} already; nothing of it can be spent.",
            f"券“{grant.id}”已处于 {grant.state} 状态，无需再撤销。",
        )
    _end(session, grant, GrantState.REVOKED, actor_id=actor.user_id, reason=reason.strip(), now=now)
    return grant


def lapse_grants(session: Session, now: datetime) -> int:
    """End grants whose time and grace are over, and return to the funds what is left of all ended grants. Idempotent.

    Money that was held when a grant ended comes back here as its holds are released. Returns how many moved.
    """
    due = session.scalars(
        select(Grant)
        .where(Grant.state == GrantState.ACTIVE, Grant.lapse_at <= now)
        .order_by(Grant.id)
        .limit(MAX_ENDED)
        .with_for_update(skip_locked=True)
    ).all()
    for grant in due:
        _end(session, grant, GrantState.LAPSED, actor_id=SYSTEM, reason="term over", now=now)
    return len(due) + sum(return_leftover(session, grant, now) > 0 for grant in _list_ended_with_money(session))


def claw_back(
    session: Session,
    *,
    grant_id: str,
    charge_id: str,
    correction_id: str,
    amount_fen: int,
    reason: str,
    now: datetime,
    actor_id: str = SYSTEM,
) -> ClawBack:
    """Note that a correction took settled voucher money back. The same one of a charge and grant again changes nothing.

    The caller posts the money into the grant's account in the same transaction, first: a debit of whoever had received
    it, a credit of `Grant.account_id`. Nothing else is needed for claims: they go by the transfers of grant accounts,
    so the next claim carries the amount as a negative line if the authority was asked for it before. Here an ended
    grant's money goes on to its fund.

    Raises:
        NotFoundError: no such grant. InvalidValueError: amount below 1 fen or no reason.
    """
    grant = _lock(session, grant_id)
    key = derive_id("clw", correction_id, charge_id, grant_id)
    known = session.get(ClawBack, key)
    if known is not None:
        return known
    if amount_fen < 1 or not reason.strip():
        raise InvalidValueError(
            f"A claw back of {amount_fen} fen with reason '{reason}': give 1 fen or more and the reason.",
            f"追回 {amount_fen} 分有误：至少 1 分并说明理由。",
            field="amount_fen",
        )
    row = ClawBack(
        id=key,
        organisation_id=grant.organisation_id,
        grant_id=grant.id,
        charge_id=charge_id,
        correction_id=correction_id,
        amount_fen=amount_fen,
        to_fund=grant.state is not GrantState.ACTIVE,
        reason=reason.strip(),
        actor_id=actor_id,
        created_at=now,
    )
    session.add(row)
    session.flush()
    if row.to_fund:
        return_leftover(session, grant, now)
    record_event(
        session,
        "voucher.clawed_back",
        grant.id,
        organisation_id=grant.organisation_id,
        actor_id=actor_id,
        now=now,
        charge_id=charge_id,
        correction_id=correction_id,
        amount_fen=amount_fen,
        reason=row.reason,
    )
    return row


def list_claw_backs(session: Session, grant_ids: list[str]) -> list[ClawBack]:
    """Return the money taken back of these grants, oldest first."""
    query = select(ClawBack).where(ClawBack.grant_id.in_(grant_ids))
    return list(session.scalars(query.order_by(ClawBack.created_at, ClawBack.id)))


def return_leftover(session: Session, grant: Grant, now: datetime) -> int:
    """Post what an ended grant has available back to its fund and return the fen; held money stays."""
    account = session.get_one(Account, grant.account_id, with_for_update=True, populate_existing=True)
    left = account.available_fen
    if left <= 0:
        return 0
    # What went back before is part of the id: a second return is another movement than the first.
    key = derive_id("tra", "return", grant.id, str(grant.returned_fen))
    fund = fund_account(session, grant.programme_id, now)
    movement = move(key, account, fund, amount_fen=left, code=RETURNED)
    post_group(session, key, [movement], Posted("grant", grant.id, SYSTEM, now))
    grant.returned_fen += left
    session.flush()
    record_event(
        session,
        "grant.returned",
        grant.id,
        organisation_id=grant.organisation_id,
        actor_id=SYSTEM,
        now=now,
        amount_fen=left,
        state=str(grant.state),
    )
    return left


def _lock(session: Session, grant_id: str) -> Grant:
    grant = session.get(Grant, grant_id, with_for_update=True, populate_existing=True)
    if grant is None:
        raise NotFoundError.of("grant", grant_id)
    return grant


def _end(session: Session, grant: Grant, state: GrantState, *, actor_id: str, reason: str, now: datetime) -> None:
    grant.state, grant.ended_at, grant.ended_by, grant.ended_reason = state, now, actor_id, reason
    session.flush()
    record_event(
        session,
        f"grant.{state}",
        grant.id,
        organisation_id=grant.organisation_id,
        actor_id=actor_id,
        now=now,
        reason=reason,
    )
    return_leftover(session, grant, now)


def _list_ended_with_money(session: Session) -> list[Grant]:
    return list(
        session.scalars(
            select(Grant)
            .join(Account, Account.id == Grant.account_id)
            .where(
                Grant.state != GrantState.ACTIVE,
                Account.credits_posted > Account.debits_posted + Account.debits_pending,
            )
            .order_by(Grant.id)
            .limit(MAX_ENDED)
        )
    )
