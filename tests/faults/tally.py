"""The one line that every fault test prints and asserts on: what was sent, what came of it, that no fen is amiss.

docs/audit.md tells how to read it. It leaves the fault itself to the tests.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from hub.audit.chain import chain_all, count_missing
from hub.database import Sessions
from hub.ledger.audit import trial_balance
from hub.ledger.invariants import check_invariants
from hub.ledger.leases import expire_hold, list_expired
from hub.ledger.tables import Account, Transfer
from hub.orders.service import settle_tranches
from hub.orders.tables import Order
from tests.faults.ground import NOW

ORPHANS = (
    "SELECT count(*) FROM ledger_transfers h LEFT JOIN ledger_transfers t ON t.pending_id = h.id "
    "LEFT JOIN orders o ON o.id = h.business_id LEFT JOIN usage_tranches u ON u.id = h.business_id "
    "LEFT JOIN payouts p ON p.id = h.business_id LEFT JOIN ledger_hold_leases l ON l.hold_id = h.id "
    "WHERE h.kind = 'pending' AND t.id IS NULL "
    "AND o.id IS NULL AND u.id IS NULL AND p.id IS NULL AND l.hold_id IS NULL"
)
"""Open holds that nothing stands behind: no order, tranche, payout or lease."""

LEFT_OPEN = (
    "SELECT count(*) FROM ledger_transfers h LEFT JOIN ledger_transfers t ON t.pending_id = h.id "
    "LEFT JOIN orders o ON o.id = h.business_id AND o.state = 'held' "
    "LEFT JOIN usage_tranches u ON u.id = h.business_id AND u.state = 'open' "
    "LEFT JOIN payouts p ON p.id = h.business_id AND p.state IN ('requested', 'in_payout', 'unknown') "
    "WHERE h.kind = 'pending' AND t.id IS NULL AND o.id IS NULL AND u.id IS NULL AND p.id IS NULL"
)
"""Open holds that the sweepers should have ended: whatever they were for is over."""


@dataclass(frozen=True)
class Tally:
    """Counts and fen; everything from `lost_acked` on but the last two must be 0. `exists`: retries found it stored."""

    sent: int
    acked: int
    in_db: int
    lost_acked: int
    phantom: int
    double: int
    zero_sum: int
    cap_over_fen: int
    negative: int
    orphan_holds: int
    open_holds_after_sweep: int
    version_gaps: int
    audit_missing: int
    broken_invariants: int
    exists: int
    recovery_s: float

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, made up, doubled, overspent, left open or left out."""
        return not any(getattr(self, field.name) for field in fields(self)[3:-2])

    def __str__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        exists, recovery = shown.pop("exists"), shown.pop("recovery_s")
        words = [f"{name}={value}" for name, value in shown.items()]
        return " ".join([*words[:6], f"ambiguous→exists={exists}", *words[6:], f"recovery_s={recovery:.1f}"])


def take_tally(
    sessions: Sessions,
    name: str,
    *,
    sent: Collection[str] = (),
    acked: Collection[str] = (),
    found: Collection[str] | None = None,
    exists: int = 0,
    double: int = 0,
    recovery_s: float = 0.0,
) -> Tally:
    """Sweep, chain what is left, measure the database against what was sent, print the line and return it.

    `found` says which of the sent ids the database has; without it they are ids of transfers.
    """
    with sessions.read() as session:
        if found is None:
            found = set(session.scalars(select(Transfer.id).where(Transfer.id.in_(list(sent)))))
        orphans = int(session.scalar(text(ORPHANS)) or 0)
    _sweep(sessions)
    chain_all(sessions)
    with sessions.read() as session:
        balance, missing = trial_balance(session), count_missing(session)
        findings = {item.invariant.id: item for item in check_invariants(session)}
        tally = Tally(
            sent=len(sent),
            acked=len(acked),
            in_db=len(found),
            lost_acked=len(set(acked) - set(found)),
            phantom=len(set(found) - set(sent)),
            double=double,
            zero_sum=abs(balance.posted_sum_fen) + abs(balance.pending_sum_fen),
            cap_over_fen=_count_over(session),
            negative=_count_negative(session),
            orphan_holds=orphans,
            open_holds_after_sweep=int(session.scalar(text(LEFT_OPEN)) or 0),
            version_gaps=findings["I4"].broken,
            audit_missing=missing.events + missing.transfers,
            broken_invariants=sum(item.broken for item in findings.values()),
            exists=exists,
            recovery_s=recovery_s,
        )
    for item in findings.values():
        if item.broken:
            sys.stdout.write(f"\n{item.invariant.id} is broken: {item.examples}")
    sys.stdout.write(f"\n{name} [{sessions.engine.dialect.name}]: {tally}\n")
    return tally


def _sweep(sessions: Sessions) -> None:
    """Do what the worker does with money that nobody needs any more: leases run out, tranches without slices end."""
    with sessions.read() as session:
        latest: datetime = session.scalar(select(func.max(Transfer.recorded_at))) or NOW
    with sessions.write() as session:
        settle_tranches(session, latest)
    tomorrow = latest + timedelta(days=1)
    with sessions.write() as session:
        for held in list_expired(session, tomorrow):
            # An order's own holds are its room's to end, once its job is proven gone.
            if session.get(Order, held.business_id) is None:
                expire_hold(session, held, tomorrow)


def _count_over(session: Session) -> int:
    over = Account.debits_pending + Account.debits_posted - Account.credits_posted
    return int(session.scalar(select(func.sum(over)).where(Account.limited.in_([True]), over > 0)) or 0)


def _count_negative(session: Session) -> int:
    sides = (Account.debits_pending, Account.debits_posted, Account.credits_pending, Account.credits_posted)
    least = func.least(*sides) if session.get_bind().dialect.name == "postgresql" else func.min(*sides)
    return session.scalar(select(func.count()).where(least < 0)) or 0
