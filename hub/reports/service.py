"""Builds statements and hands out the trial balance. Reads only; a closed month comes as it was stored.

It leaves money to the ledger, bills to orders, and closing months to `closing`.
"""

from sqlalchemy.orm import Session

from hub.ledger.audit import TrialBalance, check_books, trial_balance
from hub.ledger.periods import month_bounds
from hub.organisations.service import find_organisation
from hub.reports.balances import Balance, list_balances
from hub.reports.carried import sum_carried
from hub.reports.lines import StatementLine, list_lines
from hub.reports.statement import Closed, Statement
from hub.reports.stored import restore
from hub.reports.tables import ClosedStatement

__all__ = [
    "Balance",
    "Closed",
    "Statement",
    "StatementLine",
    "TrialBalance",
    "build_statement",
    "check_books",
    "statement",
    "trial_balance",
]


def statement(session: Session, organisation_id: str, month: str) -> Statement:
    """Return the statement of a Shanghai month such as `2026-11`, as stored where the month is closed.

    Raises:
        InvalidValueError: the month is malformed.
        NotFoundError: no such organisation.
    """
    month_bounds(month)
    stored = session.get(ClosedStatement, (organisation_id, month))
    return restore(stored) if stored is not None else build_statement(session, organisation_id, month)


def build_statement(session: Session, organisation_id: str, month: str) -> Statement:
    """Return the statement of a month from the books as they are now. Raises: as `statement`."""
    start, end = month_bounds(month)
    organisation = find_organisation(session, organisation_id)
    lines = list_lines(session, organisation_id, month)
    balance = trial_balance(session)
    self_paid = sum(line.self_paid_fen for line in lines)
    total = sum(line.list_fen for line in lines)
    return Statement(
        organisation_id=organisation_id,
        organisation_name=organisation.name,
        uscc=organisation.uscc,
        demo=organisation.demo,
        month=month,
        lines=lines,
        list_fen=total,
        voucher_fen=total - self_paid,
        self_paid_fen=self_paid,
        carried=sum_carried(session, organisation_id, month),
        balances=list_balances(session, organisation_id, start, end),
        ledger_sum_fen=balance.posted_sum_fen + balance.pending_sum_fen,
        closed=None,
    )
