"""A group's transfers as the values that are stored, in the order of `hub.ledger.routines.TRANSFER`; pure."""

from hub.clock import to_us
from hub.ledger.books import Group
from hub.ledger.rules import fingerprint

Row = tuple[str, str, int, str, str, str, int, str, str, str, str | None, str | None, str, int, int, str]


def list_rows(group: Group) -> list[Row]:
    """Return one row a movement of the simple kind, which ends no hold and reverses nothing."""
    posted = group.posted
    now = to_us(posted.now)
    event_at = now if posted.event_at is None else to_us(posted.event_at)
    return [
        (
            one.id,
            group.id,
            position,
            one.kind.value,
            one.debit_id,
            one.credit_id,
            one.amount_fen,
            one.code,
            posted.business_type,
            posted.business_id,
            one.rule_version_id,
            one.price_version_id,
            posted.actor_id,
            event_at,
            now,
            fingerprint(one, group.id, position),
        )
        for position, one in enumerate(group.movements)
    ]
