"""What a movement of money is, which ones are refused, and what one does to two accounts; pure, no session.

It leaves locking and storing to `hub.ledger.service` and the names of the refusals to `hub.ledger.refusals`.
"""

import hashlib
from dataclasses import dataclass

import msgspec

from hub.columns import write_json
from hub.errors import InvalidValueError
from hub.ledger.refusals import (
    AccountLimitError,
    AmountNotPositiveError,
    AmountNotWholeError,
    AmountTooLargeError,
    HoldExpiredError,
    HoldResolvedError,
    PeriodClosedError,
    TransferConflictError,
)
from hub.ledger.tables import TransferKind

__all__ = [
    "MAX_AMOUNT_FEN",
    "AccountLimitError",
    "Delta",
    "HoldExpiredError",
    "HoldResolvedError",
    "Movement",
    "PeriodClosedError",
    "TransferConflictError",
    "check_movement",
    "derive_id",
    "fingerprint",
    "lease_end",
    "leg_delta",
]

# Eight times as fast as the standard library's, with the same bytes for texts and whole numbers.
_WRITE = msgspec.json.Encoder().encode
MAX_AMOUNT_FEN = 10**15
"""Ten trillion yuan: sums of many such amounts still fit 64 bits."""


class Movement(msgspec.Struct, frozen=True, gc=False):
    """One transfer as its maker asks for it; `id` is the maker's, so that a repeat is recognised.

    A post or void names its hold and the hold's two accounts; a hold may name a `lease_s` after which it expires.
    """

    id: str
    kind: TransferKind
    amount_fen: int
    code: str
    debit_id: str
    credit_id: str
    pending_id: str | None = None
    reverses_id: str | None = None
    rule_version_id: str | None = None
    price_version_id: str | None = None
    lease_s: int | None = None


class _Said(msgspec.Struct, gc=False):
    """What a fingerprint is taken of, in the order of the names, so that nothing is left to sort."""

    amount_fen: int
    code: str
    credit_id: str
    debit_id: str
    group_id: str
    id: str
    kind: TransferKind
    lease_s: int | None
    pending_id: str | None
    position: int
    price_version_id: str | None
    reverses_id: str | None
    rule_version_id: str | None


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
    """Return the sha256 of everything the maker said about a transfer, as canonical JSON (`write_json`)."""
    said = _Said(
        movement.amount_fen,
        movement.code,
        movement.credit_id,
        movement.debit_id,
        group_id,
        movement.id,
        movement.kind,
        movement.lease_s,
        movement.pending_id,
        position,
        movement.price_version_id,
        movement.reverses_id,
        movement.rule_version_id,
    )
    return hashlib.sha256(_WRITE(said)).hexdigest()


def lease_end(movement: Movement, now: int) -> int | None:
    """Return when a hold's lease ends, in microseconds like `now`; None: it has none."""
    return None if movement.lease_s is None else now + movement.lease_s * 1_000_000


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
        InvalidValueError: the amount (`amount_not_whole`, `amount_not_positive`, `amount_too_large`), or references
            that do not fit the kind.
    """
    _check_amount(movement.amount_fen)
    if movement.debit_id == movement.credit_id:
        raise _misfit(movement, "moves between two different accounts", "须在两个不同账户之间", "credit_id")
    if (movement.kind in (TransferKind.POST, TransferKind.VOID)) != (movement.pending_id is not None):
        raise _misfit(movement, "names a hold if and only if it ends one", "仅在了结冻结时引用冻结", "pending_id")
    if movement.reverses_id is not None and movement.kind is not TransferKind.SINGLE:
        raise _misfit(movement, "cannot reverse; a reversal moves at once", "不能用于冲正", "reverses_id")
    if movement.lease_s is not None and (movement.kind is not TransferKind.PENDING or movement.lease_s < 1):
        raise _misfit(movement, "has no lease; a hold has one of at least 1 s", "租期只用于冻结且至少 1 秒", "lease_s")


def _check_amount(amount_fen: int) -> None:
    # A bool is an int to Python, and a float passes the type checker's eye in JSON: both are stopped here.
    if type(amount_fen) is not int:
        raise AmountNotWholeError(
            f"Amount {amount_fen!r} is not a whole number of fen; give an integer.",
            f"金额 {amount_fen!r} 不是整数分，请给出整数。",
            field="amount_fen",
        )
    if amount_fen < 1:
        raise AmountNotPositiveError(
            f"Amount {amount_fen} fen is out of 1..{MAX_AMOUNT_FEN}; to move money back, swap the accounts.",
            f"金额 {amount_fen} 分超出 1..{MAX_AMOUNT_FEN}；反向转账请交换账户。",
            field="amount_fen",
        )
    if amount_fen > MAX_AMOUNT_FEN:
        raise AmountTooLargeError(
            f"Amount {amount_fen} fen is out of 1..{MAX_AMOUNT_FEN}; split it.",
            f"金额 {amount_fen} 分超出 1..{MAX_AMOUNT_FEN}，请拆分。",
            field="amount_fen",
        )


def _misfit(movement: Movement, en: str, zh: str, field: str) -> InvalidValueError:
    return InvalidValueError(
        f"Transfer '{movement.id}': a {movement.kind} {en}.",
        f"转账“{movement.id}”（{movement.kind}）：{zh}。",
        field=field,
    )
