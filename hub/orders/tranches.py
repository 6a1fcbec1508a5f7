"""Tranche holds of hosted calls: found or opened when a slice is needed.

It leaves cutting slices to `allowances` and the end of a tranche to `resolving`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.events.service import SYSTEM
from hub.ids import new_id
from hub.ledger.movements import hold
from hub.ledger.periods import month_key
from hub.ledger.rules import AccountLimitError, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind
from hub.orders.cash import firm_cash
from hub.orders.rules import UFEN_PER_FEN
from hub.orders.usage_tables import (
    TrancheState,
    UsageTranche,
)
from hub.prices.service import find_price_version
from hub.prices.tables import Meter
from hub.vouchers.service import Cover, CoverAnswer, describe_line, find_cover
from hub.vouchers.tables import Grant

TRANCHE_FEN = 500
TRANCHE_LIFETIME = timedelta(seconds=60)


def find_tranche(
    session: Session, organisation_id: str, price_version_id: str, *, now: datetime
) -> UsageTranche | None:
    """Return the newest open tranche that may still be sliced, locked; None without one.

    One that is being resolved just now is passed over instead of waited for.
    """
    return session.scalar(
        select(UsageTranche)
        .where(
            UsageTranche.organisation_id == organisation_id,
            UsageTranche.price_version_id == price_version_id,
            UsageTranche.state == TrancheState.OPEN,
            UsageTranche.month == month_key(now),
            UsageTranche.closes_at > now,
        )
        .order_by(UsageTranche.id.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def open_tranche(
    session: Session, organisation_id: str, price_version_id: str, *, want_ufen: int, now: datetime
) -> UsageTranche | None:
    """Hold money for the slices to come: what is wanted plus one fen, at least 500 fen, at most what there is.

    None where less than two fen are available, or an order took the money in this moment.
    """
    cash = firm_cash(session, organisation_id, now)
    held = min(max(TRANCHE_FEN, -(-want_ufen // UFEN_PER_FEN) + 1), cash.available_fen)
    if held < 2:
        return None
    answer = _find_cover(session, organisation_id, price_version_id, held_fen=held, now=now)
    cover = answer.covers[0] if answer.covers else None
    rule = cover or answer.waiting
    tranche = UsageTranche(
        id=new_id("utr"),
        organisation_id=organisation_id,
        price_version_id=price_version_id,
        month=month_key(now),
        state=TrancheState.OPEN,
        held_fen=held,
        voucher_held_fen=cover.amount_fen if cover else 0,
        sliced_ufen=0,
        programme=rule.programme if rule else None,
        rule_version_id=rule.rule_version_id if rule else None,
        grant_id=cover.grant_id if cover else None,
        share_num=rule.share_num if rule else 0,
        share_den=rule.share_den if rule else 1,
        opened_at=now,
        closes_at=now + TRANCHE_LIFETIME,
    )
    try:
        _place(session, tranche, cash, cover, now)
    except AccountLimitError:
        return None
    session.add(tranche)
    session.flush()
    return tranche


def usage_clearing(session: Session, organisation_id: str, now: datetime) -> Account:
    """Return the account that a firm's money for hosted calls passes through; zero before and after."""
    return open_account(session, organisation_id=organisation_id, kind=AccountKind.CLEARING, subject="usage", now=now)


def tranche_hold_id(tranche: UsageTranche, purse: str) -> str:
    """Return the id of a tranche's hold on `voucher` or `cash`."""
    return derive_id("tra", "hold", tranche.id, purse)


def _find_cover(
    session: Session, organisation_id: str, price_version_id: str, *, held_fen: int, now: datetime
) -> CoverAnswer:
    """Return what a voucher would pay at most; whether a call's base is filed only its usage tells.

    Where all of a grant is held just now, its rule is pinned without a hold: the bill line catches up later.
    """
    line = describe_line(
        session,
        find_price_version(session, price_version_id),
        organisation_id=organisation_id,
        meter=Meter.COMPLETION,
        amount_fen=held_fen,
        filed_base=True,
    )
    return find_cover(session, line, now)


def _place(session: Session, tranche: UsageTranche, cash: Account, cover: Cover | None, now: datetime) -> None:
    clearing = usage_clearing(session, tranche.organisation_id, now)
    price = tranche.price_version_id
    movements = [
        hold(
            tranche_hold_id(tranche, "cash"),
            cash,
            clearing,
            amount_fen=tranche.held_fen,
            code="cash_held",
            price_version_id=price,
        )
    ]
    if cover is not None:
        grant = session.get_one(Grant, cover.grant_id)
        movements.append(
            hold(
                tranche_hold_id(tranche, "voucher"),
                session.get_one(Account, grant.account_id),
                clearing,
                amount_fen=cover.amount_fen,
                code="voucher_held",
                rule_version_id=cover.rule_version_id,
                price_version_id=price,
            )
        )
    post_group(session, derive_id("grp", "hold", tranche.id), movements, Posted("tranche", tranche.id, SYSTEM, now))
