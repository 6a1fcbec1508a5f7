"""The one line that every fault test prints and asserts on: what was sent, what came of it, that no fen is amiss."""

import sys
from collections.abc import Collection
from dataclasses import dataclass, fields

from sqlalchemy import func, select

from hub.audit.chain import chain_all, count_missing
from hub.database import Sessions
from hub.ledger.audit import trial_balance
from hub.ledger.invariants import check_invariants
from hub.ledger.tables import Account, Transfer


@dataclass(frozen=True)
class Tally:
    """Counts and fen; everything after `ambiguous` must be 0."""

    sent: int
    acked: int
    in_db: int
    ambiguous: int
    lost_acked: int
    phantom: int
    double: int
    zero_sum: int
    cap_over_fen: int
    negative: int
    broken_invariants: int
    audit_missing: int

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, made up, doubled, overspent or left out."""
        return not any(getattr(self, field.name) for field in fields(self)[4:])

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def take_tally(
    sessions: Sessions,
    name: str,
    *,
    sent: Collection[str] = (),
    acked: Collection[str] = (),
    ambiguous: int = 0,
    double: int = 0,
) -> Tally:
    """Chain what is left, measure the database against what was sent (transfer ids), print the line, return it."""
    chain_all(sessions)
    with sessions.read() as session:
        found = set(session.scalars(select(Transfer.id).where(Transfer.id.in_(list(sent))))) if sent else set()
        balance, missing = trial_balance(session), count_missing(session)
        over = func.sum(Account.debits_pending + Account.debits_posted - Account.credits_posted)
        limited = (Account.limited.in_([True]), Account.debits_pending + Account.debits_posted > Account.credits_posted)
        sides = (Account.debits_pending, Account.debits_posted, Account.credits_pending, Account.credits_posted)
        negative = select(func.count()).where(
            func.least(*sides) < 0 if _is_postgresql(sessions) else func.min(*sides) < 0
        )
        findings = [finding for finding in check_invariants(session) if finding.broken]
        tally = Tally(
            sent=len(sent),
            acked=len(acked),
            in_db=len(found),
            ambiguous=ambiguous,
            lost_acked=len(set(acked) - found),
            phantom=len(found - set(sent)),
            double=double,
            zero_sum=abs(balance.posted_sum_fen) + abs(balance.pending_sum_fen),
            cap_over_fen=int(session.scalar(select(over).where(*limited)) or 0),
            negative=session.scalar(negative) or 0,
            broken_invariants=sum(finding.broken for finding in findings),
            audit_missing=missing.events + missing.transfers,
        )
    for finding in findings:
        sys.stdout.write(f"\n{finding.invariant.id} is broken: {finding.examples}")
    sys.stdout.write(f"\n{name} [{sessions.engine.dialect.name}]: {tally}\n")
    return tally


def _is_postgresql(sessions: Sessions) -> bool:
    return sessions.engine.dialect.name == "postgresql"
