"""What a movement of money is and does to the sides of two accounts; pure, no session.

It leaves locking, storing and limits under concurrency to `hub.ledger.service`.
"""

import hashlib
from dataclasses import dataclass

from hub.columns import write_json
from hub.errors import ConflictError, GuanmoError, IdempotencyConflictError, InvalidValueError
from hub.ledger.tables import TransferKind

MAX_AMOUNT_FEN = 10**15
"""Ten trillion yuan: sums of many such amounts still fit 64 bits."""


class AccountLimitError(GuanmoError):
    """A debit would take more than the account holds."""

    code = "account_limit"
    status = 402


class TransferConflictError(IdempotencyConflictError):
    """A transfer id came again with other content."""

    code = "transfer_conflict"


class HoldResolvedError(ConflictError):
    """The hold was posted or voided before; a hold ends once."""

    code = "hold_already_resolved"


@dataclass(frozen=True)
class Movement:
    """One transfer as its maker asks for it; `id` is the maker's, so that a repeat is recognised."""

    id: str
    kind: TransferKind
    amount_fen: int
    code: str
    debit_id: str = ""
    credit_id: str = ""
    pending_id: str | None = None
    rule_version_id: str | None = None
    price_version_id: str | None = None


@dataclass(frozen=True)
class Delta:
    """What one leg adds to the pending and posted side of its account, in fen."""

    pending_fen: int
    posted_fen: int


def derive_id(prefix: str, *parts: str) -> str:
    """Return an id made from its business key, so that doing the same thing twice gives the same id."""
    digest = hashlib.sha256(write_json(list(parts)).encode()).hexdigest()
    return f"{prefix}_{digest[:32]}"


def fingerprint(movement: Movement, group_id: str, position: int) -> str:
    """Return the sha256 of everything the maker said about a transfer."""
    content = {**vars(movement), "kind": str(movement.kind), "group_id": group_id, "position": position}
    return hashlib.sha256(write_json(content).encode()).hexdigest()


def leg_delta(kind: TransferKind, amount_fen: int, held_fen: int) -> Delta:
    """Return what either leg of a transfer does; `held_fen` is the amount of the hold that it ends, else 0.

    A post for less than the hold releases the rest, because the whole hold leaves the pending side.
    """
    if kind is TransferKind.SINGLE:
        return Delta(0, amount_fen)
    if kind is TransferKind.PENDING:
        return Delta(amount_fen, 0)
    if kind is TransferKind.POST:
        return Delta(-held_fen, amount_fen)
    return Delta(-held_fen, 0)


def check_movement(movement: Movement) -> None:
    """Pass a movement whose amount and references make sense by themselves.

    Raises:
        InvalidValueError: amount out of 1..10^15 fen, or references that do not fit the kind.
    """
    if not 1 <= movement.amount_fen <= MAX_AMOUNT_FEN:
        raise InvalidValueError(
            f"Amount {movement.amount_fen} fen is out of 1..{MAX_AMOUNT_FEN}; give whole fen.",
            f"金额 {movement.amount_fen} 分超出 1..{MAX_AMOUNT_FEN}，请给出整数分。",
            field="amount_fen",
        )
    resolves = movement.kind in (TransferKind.POST, TransferKind.VOID)
    if resolves != (movement.pending_id is not None) or resolves == bool(movement.debit_id and movement.credit_id):
        raise InvalidValueError(
            f"A {movement.kind} names {'its hold only' if resolves else 'two accounts and no hold'}.",
            f"{movement.kind} 的账户与冻结引用不匹配。",
            field="pending_id",
        )
