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
    lease_s: int | None = None,
) -> Movement:
    """Return a transfer that sets fen aside until a post or a void, and no longer than its lease where it has one."""
    return Movement(
        key,
        TransferKind.PENDING,
        amount_fen,
        code,
        debit.id,
        credit.id,
        rule_version_id=rule_version_id,
        price_version_id=price_version_id,
        lease_s=lease_s,
    )


def resolve(key: str, held: Transfer, *, amount_fen: int, code: str) -> Movement:
    """Return the end of a hold: a post of `amount_fen` with the rest released, or a full void where it is 0."""
    kind = TransferKind.POST if amount_fen else TransferKind.VOID
    return Movement(
        key,
        kind,
        amount_fen or held.amount_fen,
        code,
        held.debit_id,
        held.credit_id,
        pending_id=held.id,
        rule_version_id=held.rule_version_id,
        price_version_id=held.price_version_id,
    )


def reverse(key: str, posted: Transfer, *, code: str) -> Movement:
    """Return the whole of a posted transfer moved back; the first stays, and can be reversed once."""
    return Movement(
        key,
        TransferKind.SINGLE,
        posted.amount_fen,
        code,
        posted.credit_id,
        posted.debit_id,
        reverses_id=posted.id,
        rule_version_id=posted.rule_version_id,
        price_version_id=posted.price_version_id,
    )


def difference(key: str, debit: Account, credit: Account, *, was_fen: int, now_fen: int, code: str) -> list[Movement]:
    """Return what makes `was_fen` moved from debit to credit into `now_fen`: more, some of it back, or nothing."""
    if now_fen == was_fen:
        return []
    if now_fen > was_fen:
        return [move(key, debit, credit, amount_fen=now_fen - was_fen, code=code)]
    return [move(key, credit, debit, amount_fen=was_fen - now_fen, code=code)]
