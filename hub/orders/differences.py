"""Moves the differences of a corrected bill: from and to payers and receivers, through a clearing account.

It leaves how large they are to `correction_money` (orders) and `call_correction_money` (hosted calls).
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from hub.ledger.movements import move
from hub.ledger.rules import AccountLimitError, Movement, derive_id
from hub.ledger.service import open_account
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.orders.parts import Given, receiving_account
from hub.orders.rules import InsufficientFundsError
from hub.payouts.debts import open_debt


def take_back(
    session: Session,
    parts: Sequence[Sequence[Given]],
    clearing: Account,
    *,
    keep_receivers: bool,
    key: str,
    now: datetime,
) -> tuple[list[Movement], int]:
    """Return what receivers give back, and what the platform advances for those that were paid out already.

    What is advanced is a debt of the receiver, netted from its next payout. `keep_receivers`: the platform bears all.
    """
    cost = open_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST, now=now)
    left: dict[str, int] = {}
    movements, advanced = [], 0
    for index, given in ((index, given) for index, line in enumerate(parts) for given in line if given.amount_fen < 0):
        account = cost if keep_receivers else receiving_account(session, given, now)
        due = -given.amount_fen
        own = min(due, left.setdefault(account.id, account.available_fen)) if account.limited else due
        left[account.id] = left.get(account.id, 0) - own
        name = (key, str(index), given.party, given.organisation_id)
        if own:
            movements.append(
                move(derive_id("tra", "back", *name), account, clearing, amount_fen=own, code="taken_back")
            )
        if due > own:
            advanced += due - own
            debt, again = open_debt(session, given.organisation_id, now), derive_id("tra", "advance", *name)
            movements.append(move(again, debt, clearing, amount_fen=due - own, code="correction_advanced"))
    return movements, advanced


def hand_out(
    session: Session, parts: Sequence[Sequence[Given]], clearing: Account, *, key: str, now: datetime
) -> list[Movement]:
    """Return what receivers get in addition."""
    return [
        move(
            derive_id("tra", "part", key, str(index), given.party, given.organisation_id),
            clearing,
            receiving_account(session, given, now),
            amount_fen=given.amount_fen,
            code=f"income_{given.party}",
        )
        for index, line in enumerate(parts)
        for given in line
        if given.amount_fen > 0
    ]


def shift(name: tuple[str, str], purse: str, payer: Account, clearing: Account, amount_fen: int) -> Movement:
    """Return a payer's difference: more is taken from it, less is given back to it."""
    transfer_id = derive_id("tra", "correct", *name, purse)
    if amount_fen > 0:
        return move(transfer_id, payer, clearing, amount_fen=amount_fen, code=f"{purse}_corrected")
    return move(transfer_id, clearing, payer, amount_fen=-amount_fen, code=f"{purse}_returned")


def explain_short(error: AccountLimitError, *, needed_fen: int) -> Exception:
    """Return the refusal of a correction that the firm's cash does not cover; any other limit as it is."""
    if error.extra["kind"] != AccountKind.FIRM_CASH:
        return error
    return InsufficientFundsError(
        f"The correction needs {needed_fen} fen of the firm's cash, {error.extra['available_fen']} fen are available; "
        "nothing was posted. Ask the firm to deposit the rest.",
        f"更正需企业自付 {needed_fen} 分，可用 {error.extra['available_fen']} 分，未入账。请企业补足。",
        available_fen=error.extra["available_fen"],
        needed_fen=needed_fen,
    )
