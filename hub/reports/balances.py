"""Balances before and after a period: the firm's cash, its grants and debts, and the funds of their programmes.

It leaves the lines between them to `lines`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.ledger.audit import sides_at
from hub.ledger.service import find_account
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.vouchers.service import GrantBalance, list_grants
from hub.vouchers.tables import Programme


@dataclass(frozen=True)
class Balance:
    """One account over a period, in fen: before + credited - charged = after; `held_fen` of it is set aside."""

    kind: str
    subject: str
    title_zh: str
    title_en: str
    before_fen: int
    credited_fen: int
    charged_fen: int
    after_fen: int
    held_fen: int


def list_balances(session: Session, organisation_id: str, start: datetime, end: datetime) -> list[Balance]:
    """Return firm cash, debts, each grant, and the fund of each programme that granted, over [start, end)."""
    grants = [grant for grant in list_grants(session, organisation_id) if grant.grant.created_at < end]
    balances = []
    cash = find_account(session, organisation_id=organisation_id, kind=AccountKind.FIRM_CASH)
    if cash is not None:
        titles = ("企业资金", "Firm cash")
        balances.append(_measure(session, cash.id, ("firm_cash", "", *titles), start=start, end=end))
    for debt in _list_debts(session, organisation_id, end):
        name = ("firm_receivable", debt.subject, "应退回款项", "Owed back")
        balances.append(_measure(session, debt.id, name, start=start, end=end))
    for grant in grants:
        balances.append(_measure(session, grant.grant.account_id, _name_grant(grant), start=start, end=end))
    return balances + _list_funds(session, {grant.programme.id for grant in grants}, start, end)


def _list_debts(session: Session, organisation_id: str, end: datetime) -> list[Account]:
    query = select(Account).where(
        Account.organisation_id == organisation_id,
        Account.kind == AccountKind.FIRM_RECEIVABLE,
        Account.created_at < end,
    )
    return list(session.scalars(query.order_by(Account.subject)))


def _name_grant(grant: GrantBalance) -> tuple[str, str, str, str]:
    programme, period = grant.programme, grant.grant.period_key
    return ("grant", grant.grant.id, f"{programme.title_zh} {period}", f"{programme.title_en} {period}")


def _list_funds(session: Session, programme_ids: set[str], start: datetime, end: datetime) -> list[Balance]:
    balances = []
    for programme in session.scalars(
        select(Programme).where(Programme.id.in_(sorted(programme_ids))).order_by(Programme.code)
    ):
        fund = find_account(session, organisation_id=PLATFORM, kind=AccountKind.PROGRAMME_FUND, subject=programme.id)
        if fund is not None:
            name = ("programme_fund", programme.code, f"{programme.title_zh}资金池", f"Fund of {programme.title_en}")
            balances.append(_measure(session, fund.id, name, start=start, end=end))
    return balances


def _measure(
    session: Session, account_id: str, name: tuple[str, str, str, str], *, start: datetime, end: datetime
) -> Balance:
    first, last = sides_at(session, account_id, start), sides_at(session, account_id, end)
    credits_before, debits_before = (first.credits_posted, first.debits_posted) if first else (0, 0)
    credits_after, debits_after = (last.credits_posted, last.debits_posted) if last else (0, 0)
    kind, subject, title_zh, title_en = name
    return Balance(
        kind=kind,
        subject=subject,
        title_zh=title_zh,
        title_en=title_en,
        before_fen=credits_before - debits_before,
        credited_fen=credits_after - credits_before,
        charged_fen=debits_after - debits_before,
        after_fen=credits_after - debits_after,
        held_fen=last.debits_pending if last else 0,
    )
