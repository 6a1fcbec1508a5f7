"""What an organisation owes the platform: pay that a correction took back after it had been paid out, and the like.

Pay taken back is netted from the next payout. It leaves making debts to other rooms and payouts to `service`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.ledger.movements import move
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import find_account, open_account
from hub.ledger.tables import Account, AccountKind

TAKEN_BACK = "taken_back"
"""Subject of the account that holds pay taken back; other debts of the same firm have other subjects."""
NETTED = "debt_netted"
"""Code of the transfer that pays a debt out of earnings."""


def open_debt(session: Session, organisation_id: str, now: datetime, *, subject: str = TAKEN_BACK) -> Account:
    """Return the account of what an organisation owes; debits make the debt, credits pay it."""
    return open_account(
        session, organisation_id=organisation_id, kind=AccountKind.FIRM_RECEIVABLE, subject=subject, now=now
    )


def read_debt(session: Session, organisation_id: str, *, subject: str = TAKEN_BACK) -> int:
    """Return what an organisation owes of pay taken back (or of another subject), in fen."""
    account = find_account(session, organisation_id=organisation_id, kind=AccountKind.FIRM_RECEIVABLE, subject=subject)
    return -account.balance_fen if account else 0


def net_debt(payout_id: str, payable: Account, debt: Account, *, amount_fen: int) -> Movement:
    """Return the movement that pays a part of a debt out of earnings with one payout."""
    return move(derive_id("tra", "net", payout_id), payable, debt, amount_fen=amount_fen, code=NETTED)
