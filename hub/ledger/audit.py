"""Proofs over the books: trial balance, recomputed balances, gap-free versions, balances at an instant.

It leaves the wording of statements to `hub.reports`. Nothing here writes.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.ledger.rules import leg_delta
from hub.ledger.tables import Account, AccountKind, Entry, Leg, Transfer


@dataclass(frozen=True)
class KindTotal:
    """All accounts of one kind together, in fen."""

    kind: AccountKind
    accounts: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


@dataclass(frozen=True)
class TrialBalance:
    """Every kind's totals; both sums are zero or the books are broken."""

    totals: list[KindTotal]
    posted_sum_fen: int
    pending_sum_fen: int


def trial_balance(session: Session) -> TrialBalance:
    """Return the totals of all accounts by kind with credits minus debits over everything."""
    sides = (Account.debits_pending, Account.debits_posted, Account.credits_pending, Account.credits_posted)
    query = select(Account.kind, func.count(), *(func.sum(side) for side in sides)).group_by(Account.kind)
    # PostgreSQL sums BIGINT as NUMERIC: int() keeps the totals whole and exact.
    totals = [
        KindTotal(kind, count, *(int(side) for side in sums))
        for kind, count, *sums in session.execute(query.order_by(Account.kind))
    ]
    return TrialBalance(
        totals,
        sum(total.credits_posted - total.debits_posted for total in totals),
        sum(total.credits_pending - total.debits_pending for total in totals),
    )


def check_books(session: Session) -> list[str]:
    """Return every broken invariant in words; an empty list is a sound ledger. Reads everything: for audits."""
    balance = trial_balance(session)
    problems = []
    if balance.posted_sum_fen or balance.pending_sum_fen:
        problems.append(f"sums are {balance.posted_sum_fen} posted and {balance.pending_sum_fen} pending fen, not 0")
    recomputed = _recompute_sides(session)
    for account in session.scalars(select(Account).order_by(Account.id)):
        problems += _check_account(session, account, recomputed[account.id])
    return problems


def sides_at(session: Session, account_id: str, moment: datetime) -> Entry | None:
    """Return the last entry recorded before an instant; its four sides are the balance then (None: all zero)."""
    return session.scalar(
        select(Entry)
        .where(Entry.account_id == account_id, Entry.recorded_at < moment)
        .order_by(Entry.account_version.desc())
        .limit(1)
    )


def balance_at(session: Session, account_id: str, moment: datetime) -> int:
    """Return posted credits minus posted debits just before an instant, in fen."""
    entry = sides_at(session, account_id, moment)
    return entry.credits_posted - entry.debits_posted if entry else 0


def _recompute_sides(session: Session) -> dict[str, list[int]]:
    amounts: dict[str, int] = {}
    sides: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for transfer in session.scalars(select(Transfer).order_by(Transfer.seq)):
        amounts[transfer.id] = transfer.amount_fen
        delta = leg_delta(transfer.kind, transfer.amount_fen, amounts.get(transfer.pending_id or "", 0))
        for name, offset in ((transfer.debit_id, 0), (transfer.credit_id, 2)):
            sides[name][offset] += delta.pending_fen
            sides[name][offset + 1] += delta.posted_fen
    return sides


def _check_account(session: Session, account: Account, recomputed: list[int]) -> list[str]:
    stored = [account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted]
    problems = []
    if stored != recomputed:
        problems.append(f"account {account.id} stores {stored}, its transfers give {recomputed}")
    count, top = session.execute(
        select(func.count(), func.max(Entry.account_version)).where(Entry.account_id == account.id)
    ).one()
    if not count == (top or 0) == account.version:
        problems.append(f"account {account.id} is at version {account.version} with {count} entries up to {top}")
    if account.limited and account.debits_pending + account.debits_posted > account.credits_posted:
        problems.append(f"account {account.id} is overdrawn")
    return problems


def list_entries(
    session: Session, account_id: str, *, before_version: int | None, limit: int
) -> list[tuple[Entry, Transfer]]:
    """Return an account's entries with their transfers, newest first."""
    query = select(Entry, Transfer).join(Transfer, Transfer.id == Entry.transfer_id)
    query = query.where(Entry.account_id == account_id)
    if before_version is not None:
        query = query.where(Entry.account_version < before_version)
    rows = session.execute(query.order_by(Entry.account_version.desc()).limit(limit))
    return [(entry, transfer) for entry, transfer in rows]


def signed_change(entry: Entry) -> int:
    """Return +1 for a credit leg and -1 for a debit leg, to sign amounts as the account's owner sees them."""
    return 1 if entry.leg is Leg.CREDIT else -1
