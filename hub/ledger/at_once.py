"""Posts transfers and holds in one call that does all or nothing; the way of nearly every posting.

Round trips under a lock are what limits a hot account, so locking, checking and writing travel together. The
routines of `hub.ledger.routines` say yes only where nothing is in the way; anything else (a repeat, a limit, a closed
month, a missing account) they leave untouched to `hub.ledger.planning`, which knows the reason.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from hub.clock import to_us
from hub.driver import call_routine
from hub.ledger.batches import Batch
from hub.ledger.books import Group
from hub.ledger.embedded import post_embedded
from hub.ledger.rows import list_rows
from hub.ledger.rules import lease_end
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
        return [True] * len(groups) if post_embedded(connection, groups) else None
    if len(groups) == 1 and len(groups[0].movements) == 1:
        group = groups[0]
        row, expires_at = list_rows(group)[0], lease_end(group.movements[0], to_us(group.posted.now))
        found = call_routine(connection, "ledger_post_one", (*row, group.posted.month, expires_at))
    else:
        batch = Batch(groups)
        found = call_routine(connection, "ledger_post_many", batch.list_values()) if batch.is_plain() else None
    return None if found is None else [found != STORED] * len(groups)
