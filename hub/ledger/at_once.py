"""Posts transfers and holds in one call that does all or nothing; the way of nearly every posting.

Round trips under a lock are what limits a hot account, so locking, checking and writing travel together. The
routines of `hub.ledger.routines` say yes only where nothing is in the way; anything else (a repeat, a limit, a closed
month, a missing account) they leave untouched to `hub.ledger.planning`, which knows the reason.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from hub.clock import to_us
from hub.driver import call_routine, insert_whole
from hub.ledger.batches import Batch
from hub.ledger.books import Group
from hub.ledger.periods import month_key
from hub.ledger.routines import POST_SQLITE
from hub.ledger.rules import fingerprint
from hub.ledger.tables import TransferKind

SIMPLE = frozenset({TransferKind.SINGLE, TransferKind.PENDING})
STORED = "stored"
"""The routine's answer to a group that is posted already."""


def can_post_at_once(groups: Sequence[Group]) -> bool:
    """Say whether the groups are of the simple kind: nothing ends or reverses, and no id comes twice."""
    ids = set()
    for group in groups:
        for movement in group.movements:
            if movement.kind not in SIMPLE or movement.reverses_id is not None or movement.id in ids:
                return False
            ids.add(movement.id)
    return bool(ids) and len({group.id for group in groups}) == len(groups)


def post_at_once(connection: Connection, groups: Sequence[Group]) -> list[bool] | None:
    """Post the groups and say of each whether it was new; None: nothing was posted."""
    if connection.dialect.name == "sqlite":
        rows = [row for group in groups for row in list_rows(group)]
        return [True] * len(groups) if insert_whole(connection, POST_SQLITE, rows) else None
    if len(groups) == 1 and len(groups[0].movements) == 1:
        found = call_routine(connection, "ledger_post_one", list_rows(groups[0])[0])
    else:
        batch = Batch(groups)
        found = call_routine(connection, "ledger_post_many", batch.list_values()) if batch.is_plain() else None
    return None if found is None else [found != STORED] * len(groups)


def list_rows(group: Group) -> list[tuple[str | int | None, ...]]:
    """Return a group's transfers as stored values, then the month they count in and when a hold's lease ends."""
    posted = group.posted
    now = to_us(posted.now)
    event_at = now if posted.event_at is None else to_us(posted.event_at)
    month = month_key(posted.event_at or posted.now)
    return [
        (
            one.id,
            group.id,
            position,
            one.kind,
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
            month,
            None if one.lease_s is None else now + one.lease_s * 1_000_000,
        )
        for position, one in enumerate(group.movements)
    ]
