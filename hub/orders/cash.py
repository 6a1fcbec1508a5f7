"""A firm's own money: deposits that the operator confirms, and the wallet.

It leaves vouchers to `hub.vouchers` and what is held for whom to the orders.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ledger.movements import move
from hub.ledger.rules import derive_id
from hub.ledger.service import Posted, find_account, find_transfer, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind, Transfer
from hub.organisations.service import find_organisation
from hub.organisations.tables import Organisation


@dataclass(frozen=True)
class Wallet:
    """A firm's cash and what it has earned, in fen: balance = held + available."""

    organisation_id: str
    balance_fen: int
    held_fen: int
    available_fen: int
    payable_fen: int


def firm_cash(session: Session, organisation_id: str, now: datetime) -> Account:
    """Return a firm's cash account."""
    return open_account(session, organisation_id=organisation_id, kind=AccountKind.FIRM_CASH, now=now)


def queue_up(session: Session, organisation_id: str) -> None:
    """Let one firm's requests for money pass one by one; foreign keys to the firm are not held up by this lock.

    Raises:
        NotFoundError: no such organisation.
    """
    query = select(Organisation.id).where(Organisation.id == organisation_id).with_for_update(key_share=True)
    if session.scalar(query) is None:
        raise NotFoundError.of("organisation", organisation_id)


def deposit(
    session: Session, actor: Actor, organisation_id: str, *, amount_fen: int, reference: str, now: datetime
) -> Transfer:
    """Book money that arrived at the bank; `reference` is the bank's, and the same one is booked once.

    Raises:
        TransferConflictError: the reference was booked with another amount or firm.
    """
    actor.require(Role.OPERATOR)
    find_organisation(session, organisation_id)
    if not reference.strip():
        raise InvalidValueError(
            "A deposit needs the bank's reference; without it a repeat could not be told from a second payment.",
            "入账须填写银行流水号。",
            field="reference",
        )
    bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=now)
    cash = firm_cash(session, organisation_id, now)
    key = derive_id("tra", "deposit", reference)
    booked = move(key, bank, cash, amount_fen=amount_fen, code="deposit")
    known = find_transfer(session, key)
    transfer = post_group(session, key, [booked], Posted("deposit", reference, actor.user_id, now))[0]
    if known is None:
        record_event(
            session,
            "deposit.booked",
            transfer.id,
            organisation_id=organisation_id,
            actor_id=actor.user_id,
            now=now,
            amount_fen=amount_fen,
            reference=reference,
        )
    return transfer


def wallet(session: Session, organisation_id: str) -> Wallet:
    """Return a firm's cash and earnings; zeros for a firm that never had any."""
    cash = find_account(session, organisation_id=organisation_id, kind=AccountKind.FIRM_CASH)
    payable = find_account(session, organisation_id=organisation_id, kind=AccountKind.PAYABLE)
    return Wallet(
        organisation_id=organisation_id,
        balance_fen=cash.balance_fen if cash else 0,
        held_fen=cash.debits_pending if cash else 0,
        available_fen=cash.available_fen if cash else 0,
        payable_fen=payable.balance_fen if payable else 0,
    )
