"""Works out what a group of movements does to the books as they stand under lock; pure, no session.

It leaves reading the books and writing the plan to `hub.ledger.statements`.
"""

from typing import Any

from hub.clock import to_us
from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.books import Books, Group, LockedAccount, Plan, Stored
from hub.ledger.refusals import (
    AccountLimitError,
    HoldExpiredError,
    HoldResolvedError,
    ReversalError,
    TransferConflictError,
)
from hub.ledger.rules import Movement, fingerprint, lease_end, leg_delta
from hub.ledger.tables import Leg, TransferKind

EXPIRED = "expired"
"""Code of the void that ends a hold whose lease ran out."""


def is_stored(books: Books, group: Group) -> bool:
    """Say whether the group was posted before with the same content.

    Raises:
        TransferConflictError: one of its ids, or the group, was posted with other content.
    """
    known = books.groups.get(group.id, [])
    if not known and not any(movement.id in books.stored for movement in group.movements):
        return False
    for position, movement in enumerate(group.movements):
        found = books.stored.get(movement.id)
        if found is None or found.fingerprint != fingerprint(movement, group.id, position):
            raise _conflict(movement.id, group.id)
    if len(known) != len(group.movements):
        raise _conflict(group.movements[-1].id, group.id)
    return True


def plan_group(books: Books, group: Group, plan: Plan) -> None:
    """Add a new group to a plan, or refuse it; the books given are spent after a refusal.

    Raises:
        AccountLimitError, HoldResolvedError, HoldExpiredError, ReversalError, NotFoundError, InvalidValueError.
    """
    moment = to_us(group.posted.now)
    for position, movement in enumerate(group.movements):
        if movement.id in books.stored:
            raise _conflict(movement.id, group.id)
        held_fen = _check_end(books, movement, moment) if movement.pending_id is not None else 0
        if movement.reverses_id is not None:
            _check_reversal(books, movement)
        row = build_row(movement, group, position=position, moment=moment)
        _move(books, plan, movement, held_fen, moment)
        plan.transfers.append(row)
        books.remember(_as_stored(movement, group.id, row["fingerprint"], moment))
        expires_at = lease_end(movement, moment)
        if expires_at is not None:
            plan.leases.append({"hold_id": movement.id, "expires_at": expires_at, "renewed_at": moment})
        if movement.pending_id is not None:
            plan.ended.append(movement.pending_id)


def _check_end(books: Books, movement: Movement, moment: int) -> int:
    """Return the amount of the hold that a movement may end."""
    key = movement.pending_id or ""
    held = books.stored.get(key)
    if held is None or held.kind is not TransferKind.PENDING:
        raise NotFoundError.of("hold", key)
    if (held.debit_id, held.credit_id) != (movement.debit_id, movement.credit_id):
        raise _unfit(movement, held)
    whole = movement.kind is TransferKind.POST or movement.amount_fen == held.amount_fen
    if movement.amount_fen > held.amount_fen or not whole:
        raise _unfit(movement, held)
    done = books.ended.get(key)
    if done is not None:
        raise HoldResolvedError(
            f"Hold '{key}' ended before by {done.kind} '{done.id}'; a hold ends once.",
            f"冻结“{key}”已由 {done.kind}“{done.id}”了结，只能了结一次。",
        )
    _check_lease(movement, held, moment)
    return held.amount_fen


def _check_lease(movement: Movement, held: Stored, moment: int) -> None:
    over = held.expires_us is not None and held.expires_us <= moment
    if over and movement.kind is TransferKind.POST:
        raise HoldExpiredError(
            f"The lease of hold '{held.id}' ran out; renew it before posting, or void it.",
            f"冻结“{held.id}”的租期已过；请先续期再扣划，或撤销。",
        )
    if not over and movement.code == EXPIRED:
        raise HoldExpiredError(
            f"The lease of hold '{held.id}' has not run out; it cannot be ended as expired.",
            f"冻结“{held.id}”的租期未过，不能按过期了结。",
        )


def _check_reversal(books: Books, movement: Movement) -> None:
    key = movement.reverses_id or ""
    found = books.stored.get(key)
    if found is None:
        raise NotFoundError.of("transfer", key)
    swapped = (found.credit_id, found.debit_id) == (movement.debit_id, movement.credit_id)
    if found.kind not in (TransferKind.SINGLE, TransferKind.POST) or not swapped:
        raise ReversalError(
            f"Transfer '{key}' ({found.kind}) is not what '{movement.id}' would move back; reverse a single or a post.",
            f"转账“{key}”（{found.kind}）与冲正“{movement.id}”不符；只能冲正即时转账或扣划。",
        )
    if found.amount_fen != movement.amount_fen or key in books.reversed:
        raise ReversalError(
            f"A reversal moves exactly {found.amount_fen} fen back, once; correct part of it by a difference.",
            f"冲正须为全额 {found.amount_fen} 分且仅一次；部分更正请过差额。",
        )


def _move(books: Books, plan: Plan, movement: Movement, held_fen: int, moment: int) -> None:
    delta = leg_delta(movement.kind, movement.amount_fen, held_fen)
    debit, credit = books.accounts[movement.debit_id], books.accounts[movement.credit_id]
    growth = delta.pending_fen + delta.posted_fen
    if debit.limited:
        _check_limit(debit, debit.credits_posted - debit.debits_posted - debit.debits_pending, growth)
    if credit.credit_limited:
        _check_limit(credit, credit.debits_posted - credit.credits_posted - credit.credits_pending, growth)
    debit.debits_pending += delta.pending_fen
    debit.debits_posted += delta.posted_fen
    credit.credits_pending += delta.pending_fen
    credit.credits_posted += delta.posted_fen
    for account, leg in ((debit, Leg.DEBIT), (credit, Leg.CREDIT)):
        account.version += 1
        plan.accounts[account.id] = account
        plan.entries.append(_build_entry(account, leg, movement, moment))


def _check_limit(account: LockedAccount, available_fen: int, needed_fen: int) -> None:
    if needed_fen > available_fen:
        missing_fen = needed_fen - available_fen
        raise AccountLimitError(
            f"Account {account.kind} holds {available_fen} fen, {needed_fen} fen are needed; "
            f"{missing_fen} fen are missing.",
            f"{account.kind} 账户可用 {available_fen} 分，需要 {needed_fen} 分，缺 {missing_fen} 分。",
            account_id=account.id,
            kind=str(account.kind),
            available_fen=available_fen,
            needed_fen=needed_fen,
        )


def build_row(movement: Movement, group: Group, *, position: int, moment: int) -> dict[str, Any]:
    """Return a transfer by column; `moment` is now in microseconds."""
    posted = group.posted
    return {
        "id": movement.id,
        "group_id": group.id,
        "position": position,
        "kind": movement.kind,
        "debit_id": movement.debit_id,
        "credit_id": movement.credit_id,
        "amount_fen": movement.amount_fen,
        "pending_id": movement.pending_id,
        "reverses_id": movement.reverses_id,
        "code": movement.code,
        "business_type": posted.business_type,
        "business_id": posted.business_id,
        "rule_version_id": movement.rule_version_id,
        "price_version_id": movement.price_version_id,
        "actor_id": posted.actor_id,
        "event_at": moment if posted.event_at is None else to_us(posted.event_at),
        "recorded_at": moment,
        "fingerprint": fingerprint(movement, group.id, position),
    }


def _as_stored(movement: Movement, group_id: str, digest: str, moment: int) -> Stored:
    return Stored(
        movement.id,
        group_id,
        movement.kind,
        movement.debit_id,
        movement.credit_id,
        movement.amount_fen,
        movement.pending_id,
        movement.reverses_id,
        digest,
        lease_end(movement, moment),
    )


def _build_entry(account: LockedAccount, leg: Leg, movement: Movement, moment: int) -> dict[str, Any]:
    return {
        "account_id": account.id,
        "account_version": account.version,
        "transfer_id": movement.id,
        "leg": leg,
        "amount_fen": movement.amount_fen,
        "debits_pending": account.debits_pending,
        "debits_posted": account.debits_posted,
        "credits_pending": account.credits_pending,
        "credits_posted": account.credits_posted,
        "recorded_at": moment,
    }


def _unfit(movement: Movement, held: Stored) -> InvalidValueError:
    return InvalidValueError(
        f"A {movement.kind} of {movement.amount_fen} fen does not fit the hold of {held.amount_fen} fen: "
        "same two accounts, post at most the hold, void exactly the hold.",
        f"{movement.kind} {movement.amount_fen} 分与冻结额 {held.amount_fen} 分不符："
        "账户须相同，扣划不得超出，撤销须为全额。",
        field="amount_fen",
    )


def _conflict(transfer_id: str, group_id: str) -> TransferConflictError:
    return TransferConflictError(
        f"Transfer '{transfer_id}' or group '{group_id}' was posted before with other content; make a new id.",
        f"转账“{transfer_id}”或组“{group_id}”已以不同内容入账，请换新编号。",
    )
