"""Leases of holds: a holder that lives renews, a sweeper ends what nobody renewed.

It leaves the proof that a holder is gone to the room that placed the hold: an expired hold keeps its money set aside
until `expire_hold`, so a late heartbeat renews it and skewed clocks free nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hub.errors import NotFoundError
from hub.ledger import statements
from hub.ledger.books import Posted
from hub.ledger.planning import EXPIRED
from hub.ledger.rules import HoldResolvedError, Movement, derive_id
from hub.ledger.service import find_transfers, post_group
from hub.ledger.tables import HoldLease, Transfer, TransferKind

SYSTEM = "system"


def renew_holds(session: Session, hold_ids: Sequence[str], *, lease_s: int, now: datetime) -> datetime:
    """Let leased holds live until `lease_s` from now and return that time; expired ones come back to life.

    Raises:
        NotFoundError: one is no hold with a lease.
        HoldResolvedError: one has ended; whoever holds it must stop.
    """
    found = find_transfers(session, hold_ids)
    accounts = {name for held in found.values() for name in (held.debit_id, held.credit_id)}
    # The lock that posting takes: a hold cannot end between the look at its lease and its renewal.
    statements.lock_accounts(session.connection(), accounts, ())
    leased = set(session.scalars(select(HoldLease.hold_id).where(HoldLease.hold_id.in_(hold_ids))))
    for key in hold_ids:
        if key not in leased:
            raise _explain(session, key)
    expires_at = now + timedelta(seconds=lease_s)
    moved = update(HoldLease).where(HoldLease.hold_id.in_(hold_ids)).values(expires_at=expires_at, renewed_at=now)
    session.execute(moved)
    return expires_at


def list_expired(session: Session, now: datetime, *, limit: int = 100) -> list[Transfer]:
    """Return holds whose lease ran out and that nobody has ended yet, the longest expired first."""
    query = select(Transfer).join(HoldLease, HoldLease.hold_id == Transfer.id).where(HoldLease.expires_at <= now)
    return list(session.scalars(query.order_by(HoldLease.expires_at, Transfer.id).limit(limit)))


def expire_hold(session: Session, held: Transfer, now: datetime) -> Transfer:
    """Release an expired hold by a void with code `expired`; again returns the same void.

    Raises:
        HoldExpiredError: it has not expired (any more).
        HoldResolvedError: it ended in another way.
    """
    end = Movement(
        derive_id("tra", EXPIRED, held.id),
        TransferKind.VOID,
        held.amount_fen,
        EXPIRED,
        held.debit_id,
        held.credit_id,
        pending_id=held.id,
        rule_version_id=held.rule_version_id,
        price_version_id=held.price_version_id,
    )
    posted = Posted(held.business_type, held.business_id, SYSTEM, now)
    return post_group(session, derive_id("grp", EXPIRED, held.id), [end], posted)[0]


def _explain(session: Session, key: str) -> Exception:
    done = session.scalar(select(Transfer).where(Transfer.pending_id == key))
    if done is None:
        return NotFoundError.of("leased hold", key)
    return HoldResolvedError(
        f"Hold '{key}' ended by {done.kind} '{done.id}' ({done.code}); it cannot be renewed.",
        f"冻结“{key}”已由 {done.kind}“{done.id}”（{done.code}）了结，不能续期。",
    )
