"""Posts groups of transfers, all or nothing; with `accounts` the only writer of the ledger.

It leaves why money moves to the rooms that build the groups, and proofs over the books to `hub.ledger.audit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.accounts import find_account, open_account
from hub.ledger.rules import (
    AccountLimitError,
    HoldResolvedError,
    Movement,
    TransferConflictError,
    check_movement,
    fingerprint,
    leg_delta,
)
from hub.ledger.tables import Account, Entry, Leg, Transfer, TransferKind

__all__ = ["Posted", "find_account", "find_transfer", "find_transfers", "list_transfers", "open_account", "post_group"]


@dataclass(frozen=True)
class Posted:
    """Who posts a group and for which business: `business_type` names a noun, `business_id` its row."""

    business_type: str
    business_id: str
    actor_id: str
    now: datetime


def find_transfer(session: Session, transfer_id: str) -> Transfer | None:
    """Return a transfer by its maker's id."""
    return session.scalar(select(Transfer).where(Transfer.id == transfer_id))


def find_transfers(session: Session, transfer_ids: Sequence[str]) -> dict[str, Transfer]:
    """Return the transfers of these makers' ids that exist, by id."""
    return {row.id: row for row in session.scalars(select(Transfer).where(Transfer.id.in_(transfer_ids)))}


def list_transfers(session: Session, business_id: str) -> list[Transfer]:
    """Return every transfer made for one business row, in order."""
    return list(session.scalars(select(Transfer).where(Transfer.business_id == business_id).order_by(Transfer.seq)))


def post_group(session: Session, group_id: str, movements: Sequence[Movement], posted: Posted) -> list[Transfer]:
    """Post all movements in order or none; the same group again returns what is stored and changes nothing.

    Accounts are locked in id order before anything is inserted (foreign keys first would deadlock on PostgreSQL).

    Raises:
        AccountLimitError: a limited account would be overdrawn; names account, available and needed fen.
        TransferConflictError: an id or the group exists with other content.
        HoldResolvedError: a hold was ended before.
        InvalidValueError: a movement that makes no sense, or a post above its hold.
    """
    for movement in movements:
        check_movement(movement)
    holds = _load_holds(session, movements)
    accounts = _lock_accounts(session, movements, holds)
    stored = _find_stored(session, group_id, movements)
    if stored:
        return stored
    _check_unresolved(session, holds)
    # The savepoint undoes a refused group whole, even where the caller turns the refusal into an answer and commits.
    with session.begin_nested():
        transfers = [
            _build_transfer(
                movement, holds.get(movement.pending_id or ""), position=position, group_id=group_id, posted=posted
            )
            for position, movement in enumerate(movements)
        ]
        session.add_all(transfers)
        session.flush()
        for transfer in transfers:
            held = holds.get(transfer.pending_id or "")
            _apply(session, transfer, accounts, held.amount_fen if held else 0)
    return transfers


def _load_holds(session: Session, movements: Sequence[Movement]) -> dict[str, Transfer]:
    wanted = [movement.pending_id for movement in movements if movement.pending_id]
    found = {row.id: row for row in session.scalars(select(Transfer).where(Transfer.id.in_(wanted)))} if wanted else {}
    for movement in movements:
        if movement.pending_id:
            held = found.get(movement.pending_id)
            if held is None or held.kind is not TransferKind.PENDING:
                raise NotFoundError.of("hold", movement.pending_id)
            _check_resolution(movement, held)
    return found


def _check_resolution(movement: Movement, held: Transfer) -> None:
    whole = movement.kind is TransferKind.POST or movement.amount_fen == held.amount_fen
    if movement.amount_fen > held.amount_fen or not whole:
        raise InvalidValueError(
            f"A {movement.kind} of {movement.amount_fen} fen does not fit the hold of {held.amount_fen} fen: "
            "post at most the hold, void exactly the hold.",
            f"{movement.kind} {movement.amount_fen} 分与冻结额 {held.amount_fen} 分不符：扣划不得超出，撤销须为全额。",
            field="amount_fen",
        )


def _lock_accounts(session: Session, movements: Sequence[Movement], holds: dict[str, Transfer]) -> dict[str, Account]:
    wanted = {name for held in holds.values() for name in (held.debit_id, held.credit_id)}
    wanted |= {name for movement in movements for name in (movement.debit_id, movement.credit_id) if name}
    query = (
        select(Account)
        .where(Account.id.in_(sorted(wanted)))
        .order_by(Account.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    found = {account.id: account for account in session.scalars(query)}
    for name in sorted(wanted - found.keys()):
        raise NotFoundError.of("account", name)
    return found


def _find_stored(session: Session, group_id: str, movements: Sequence[Movement]) -> list[Transfer]:
    ids = [movement.id for movement in movements]
    found = {
        row.id: row
        for row in session.scalars(
            select(Transfer).where((Transfer.id.in_(ids)) | (Transfer.group_id == group_id)).order_by(Transfer.position)
        )
    }
    if not found:
        return []
    for position, movement in enumerate(movements):
        row = found.get(movement.id)
        if row is None or row.fingerprint != fingerprint(movement, group_id, position):
            raise _conflict(movement.id, group_id)
    if len(found) != len(movements):
        raise _conflict(ids[-1], group_id)
    return list(found.values())


def _conflict(transfer_id: str, group_id: str) -> TransferConflictError:
    return TransferConflictError(
        f"Transfer '{transfer_id}' or group '{group_id}' was posted before with other content; make a new id.",
        f"转账“{transfer_id}”或组“{group_id}”已以不同内容入账，请换新编号。",
    )


def _check_unresolved(session: Session, holds: dict[str, Transfer]) -> None:
    if not holds:
        return
    done = session.scalar(select(Transfer).where(Transfer.pending_id.in_(list(holds))).limit(1))
    if done is not None:
        raise HoldResolvedError(
            f"Hold '{done.pending_id}' ended before by {done.kind} '{done.id}'; a hold ends once.",
            f"冻结“{done.pending_id}”已由 {done.kind}“{done.id}”了结，只能了结一次。",
        )


def _build_transfer(
    movement: Movement, held: Transfer | None, *, position: int, group_id: str, posted: Posted
) -> Transfer:
    return Transfer(
        id=movement.id,
        group_id=group_id,
        position=position,
        kind=movement.kind,
        debit_id=held.debit_id if held else movement.debit_id,
        credit_id=held.credit_id if held else movement.credit_id,
        amount_fen=movement.amount_fen,
        pending_id=movement.pending_id,
        code=movement.code,
        business_type=posted.business_type,
        business_id=posted.business_id,
        rule_version_id=movement.rule_version_id,
        price_version_id=movement.price_version_id,
        actor_id=posted.actor_id,
        event_at=posted.now,
        recorded_at=posted.now,
        fingerprint=fingerprint(movement, group_id, position),
    )


def _apply(session: Session, transfer: Transfer, accounts: dict[str, Account], held_fen: int) -> None:
    delta = leg_delta(transfer.kind, transfer.amount_fen, held_fen)
    debit, credit = accounts[transfer.debit_id], accounts[transfer.credit_id]
    growth = delta.pending_fen + delta.posted_fen
    if debit.limited and growth > debit.available_fen:
        raise AccountLimitError(
            f"Account {debit.kind} holds {debit.available_fen} fen, {growth} fen are needed; "
            f"{growth - debit.available_fen} fen are missing.",
            f"{debit.kind} 账户可用 {debit.available_fen} 分，需要 {growth} 分，缺 {growth - debit.available_fen} 分。",
            account_id=debit.id,
            kind=str(debit.kind),
            available_fen=debit.available_fen,
            needed_fen=growth,
        )
    debit.debits_pending += delta.pending_fen
    debit.debits_posted += delta.posted_fen
    credit.credits_pending += delta.pending_fen
    credit.credits_posted += delta.posted_fen
    for account, leg in ((debit, Leg.DEBIT), (credit, Leg.CREDIT)):
        account.version += 1
        session.add(_build_entry(account, leg, transfer))


def _build_entry(account: Account, leg: Leg, transfer: Transfer) -> Entry:
    return Entry(
        account_id=account.id,
        account_version=account.version,
        transfer_id=transfer.id,
        leg=leg,
        amount_fen=transfer.amount_fen,
        debits_pending=account.debits_pending,
        debits_posted=account.debits_posted,
        credits_pending=account.credits_pending,
        credits_posted=account.credits_posted,
        recorded_at=transfer.recorded_at,
    )
