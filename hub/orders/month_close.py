"""Closes months of hosted calls: pays back in cash what a voucher still owes on a bill line, where its grant allows.

It leaves the lines themselves to `resolving` and which grants may pay to `hub.vouchers`.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from hub.events.service import SYSTEM, record_event
from hub.ledger.periods import month_bounds, month_key
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import Posted, post_group
from hub.ledger.tables import Account, TransferKind
from hub.orders.cash import firm_cash
from hub.orders.usage_tables import BillLine, TrancheState, UsageTranche
from hub.vouchers.service import find_top_up
from hub.vouchers.tables import Grant, Programme

MAX_CLOSED = 100


def close_months(session: Session, now: datetime) -> int:
    """Top up the lines of months that are over, once their money has come to rest; return how many. Idempotent.

    A tranche pays at most what it held of the voucher, so a line may end below its share (DESIGN 6); a month closes
    for a line when none of its tranches is open any more, however late.
    """
    query = (
        select(BillLine)
        .where(
            BillLine.month < month_key(now),
            BillLine.rule_version_id.is_not(None),
            (BillLine.subsidised_fen + 1) * BillLine.share_den <= BillLine.posted_fen * BillLine.share_num,
            ~exists().where(
                UsageTranche.organisation_id == BillLine.organisation_id,
                UsageTranche.price_version_id == BillLine.price_version_id,
                UsageTranche.month == BillLine.month,
                UsageTranche.state == TrancheState.OPEN,
            ),
            _has_money_left(),
        )
        .order_by(BillLine.month, BillLine.id)
        .limit(MAX_CLOSED)
        .with_for_update(skip_locked=True)
    )
    return sum(_top_up(session, line, now) for line in session.scalars(query).all())


def _has_money_left() -> ColumnElement[bool]:
    """Pass lines whose firm has money left in a grant of that period, so that others do not fill the limit."""
    return (
        exists()
        .where(Grant.organisation_id == BillLine.organisation_id)
        .where(Grant.programme_id == Programme.id, Programme.code == BillLine.programme)
        .where(Grant.period_key.in_(("lifetime", func.substr(BillLine.month, 1, 4))))
        .where(Grant.account_id == Account.id)
        .where(Account.credits_posted > Account.debits_posted + Account.debits_pending)
    )


def _top_up(session: Session, line: BillLine, now: datetime) -> bool:
    owed = line.posted_fen * line.share_num // line.share_den - line.subsidised_fen
    last_instant = month_bounds(line.month)[1] - timedelta(microseconds=1)
    shares = find_top_up(
        session,
        organisation_id=line.organisation_id,
        rule_version_id=line.rule_version_id or "",
        wanted_fen=owed,
        moment=last_instant,
    )
    if not shares:
        return False
    cash = firm_cash(session, line.organisation_id, now)
    # What was subsidised before is part of the ids: a second top-up of a line is another movement than the first.
    turn = str(line.subsidised_fen)
    movements = [
        Movement(
            derive_id("tra", "topup", line.id, turn, grant.id),
            TransferKind.SINGLE,
            amount,
            "voucher_topped_up",
            grant.account_id,
            cash.id,
            rule_version_id=line.rule_version_id,
            price_version_id=line.price_version_id,
        )
        for grant, amount in shares
    ]
    post_group(session, derive_id("grp", "topup", line.id, turn), movements, Posted("bill_line", line.id, SYSTEM, now))
    paid = sum(amount for _, amount in shares)
    line.subsidised_fen += paid
    session.flush()
    _record(session, line, paid_fen=paid, now=now)
    return True


def _record(session: Session, line: BillLine, *, paid_fen: int, now: datetime) -> None:
    record_event(
        session,
        "bill_line.topped_up",
        line.id,
        organisation_id=line.organisation_id,
        actor_id=SYSTEM,
        now=now,
        month=line.month,
        programme=line.programme,
        paid_fen=paid_fen,
    )
