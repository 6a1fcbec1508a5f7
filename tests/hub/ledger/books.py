"""A firm with cash and a clearing account, for tests of the ledger alone."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind


class Books(NamedTuple):
    """Three accounts: the bank, a firm's cash with a limit, a clearing account."""

    bank: Account
    cash: Account
    clearing: Account


def open_books(session: Session, now: datetime, *, cash_fen: int = 100) -> Books:
    """Return the accounts with `cash_fen` paid in."""
    books = Books(
        open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=now),
        open_account(session, organisation_id="org_1", kind=AccountKind.FIRM_CASH, now=now),
        open_account(session, organisation_id="org_1", kind=AccountKind.CLEARING, subject="ord_1", now=now),
    )
    if cash_fen:
        deposit = move("dep", books.bank, books.cash, amount_fen=cash_fen, code="deposit")
        post_group(session, "dep", [deposit], by(now))
    return books


def by(now: datetime) -> Posted:
    """Return who posts in tests."""
    return Posted("test", "tst_1", "usr_1", now)
