"""Short makers of movements, so that groups read as sentences.

It leaves checking and storing them to `hub.ledger.service`.
"""

from hub.ledger.rules import Movement
from hub.ledger.tables import Account, Transfer, TransferKind


def move(key: str, debit: Account, credit: Account, *, amount_fen: int, code: str) -> Movement:
    """Return a transfer that moves fen at once."""
    return Movement(key, TransferKind.SINGLE, amount_fen, code, debit.id, credit.id)


def hold(
    key: str,
    debit: Account,
    credit: Account,
    *,
    amount_fen: int,
    code: str,
    rule_version_id: str | None = None,
    price_version_id: str | None = None,
) -> Movement:
    """Return a transfer that sets fen aside until a post or a void."""
    return Movement(
        key,
        TransferKind.PENDING,
        amount_fen,
        code,
        debit.id,
        credit.id,
        rule_version_id=rule_version_id,
        price_version_id=price_version_id,
    )


def resolve(key: str, held: Transfer, *, amount_fen: int, code: str) -> Movement:
    """Return the end of a hold: a post of `amount_fen` with the rest released, or a full void where it is 0."""
    kind = TransferKind.POST if amount_fen else TransferKind.VOID
    return Movement(
        key,
        kind,
        amount_fen or held.amount_fen,
        code,
        pending_id=held.id,
        rule_version_id=held.rule_version_id,
        price_version_id=held.price_version_id,
    )
