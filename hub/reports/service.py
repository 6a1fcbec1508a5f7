"""Builds statements and hands out the trial balance. Reads only.

It leaves money to the ledger and bills to orders; nothing here changes a row.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.ledger.audit import TrialBalance, check_books, trial_balance
from hub.ledger.periods import month_bounds
from hub.organisations.service import find_organisation
from hub.reports.balances import Balance, list_balances
from hub.reports.carried import Carried, sum_carried
from hub.reports.lines import StatementLine, list_lines

__all__ = ["Balance", "Statement", "StatementLine", "TrialBalance", "check_books", "statement", "trial_balance"]


@dataclass(frozen=True)
class Statement:
    """A firm's month to the fen. `ledger_sum_fen` is the sum over all accounts of everybody and is zero.

    `carried` says which of the firm's cash moved in another month than the line that it belongs to.
    `demo` marks records of the demonstration, which carry a ribbon wherever they are shown.
    """

    organisation_id: str
    organisation_name: str
    uscc: str
    demo: bool
    month: str
    lines: list[StatementLine]
    list_fen: int
    voucher_fen: int
    self_paid_fen: int
    carried: Carried
    balances: list[Balance]
    ledger_sum_fen: int


def statement(session: Session, organisation_id: str, month: str) -> Statement:
    """Return the statement of a Shanghai month such as `2026-11`.

    Raises:
        InvalidValueError: the month is malformed.
        NotFoundError: no such organisation.
    """
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
    )
