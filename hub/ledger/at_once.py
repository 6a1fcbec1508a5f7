"""Posts transfers and holds on PostgreSQL in one call that does all or nothing; the way of nearly every posting.

Round trips under a lock are what limits a hot account, so locking, checking and writing travel together. The
routines of `hub.ledger.routines` say yes only where nothing is in the way; anything else (a repeat, a limit, a closed
month, a missing account) they leave untouched to `hub.ledger.planning`, which knows the reason.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from hub.clock import to_us
from hub.driver import call_routine
from hub.ledger.batches import Batch, Moved
from hub.ledger.books import Group
from hub.ledger.periods import month_key
from hub.ledger.rules import fingerprint
from hub.ledger.tables import TransferKind

SIMPLE = frozenset({TransferKind.SINGLE, TransferKind.PENDING})


def can_post_at_once(connection: Connection, groups: Sequence[Group]) -> bool:
    """Say whether the groups are of the simple kind: nothing ends or reverses, and no id comes twice."""
    if connection.dialect.name != "postgresql":
        return False
    ids = set()
    for group in groups:
        for movement in group.movements:
            if movement.kind not in SIMPLE or movement.reverses_id is not None or movement.id in ids:
                return False
            ids.add(movement.id)
    return bool(ids) and len({group.id for group in groups}) == len(groups)


def post_at_once(connection: Connection, groups: Sequence[Group]) -> Moved | None:
    """Post the groups and return how their accounts stand now; none: posted before; None: nothing was posted."""
    if len(groups) == 1 and len(groups[0].movements) == 1:
        return _post_one(connection, groups[0])
    batch = Batch(groups)
    found = call_routine(connection, "ledger_post_many", batch.list_values()) if batch.is_plain() else None
    if found is None:
        return None
    return batch.list_moved(_read_numbers(found))


def _post_one(connection: Connection, group: Group) -> Moved | None:
    movement, posted = group.movements[0], group.posted
    now = to_us(posted.now)
    values = (
        month_key(posted.event_at or posted.now),
        movement.id,
        group.id,
        movement.kind,
        movement.debit_id,
        movement.credit_id,
        movement.amount_fen,
        movement.code,
        posted.business_type,
        posted.business_id,
        movement.rule_version_id,
        movement.price_version_id,
        posted.actor_id,
        now if posted.event_at is None else to_us(posted.event_at),
        now,
        fingerprint(movement, group.id, 0),
        None if movement.lease_s is None else now + movement.lease_s * 1_000_000,
    )
    found = call_routine(connection, "ledger_post_one", values)
    if found is None:
        return None
    sides = _read_numbers(found)
    if not sides:
        return []
    return [_name_sides(movement.debit_id, *sides[:5]), _name_sides(movement.credit_id, *sides[5:])]


def _name_sides(name: str, dp: int, d: int, cp: int, c: int, version: int) -> tuple[str, int, int, int, int, int]:
    return name, dp, d, cp, c, version


def _read_numbers(array: str) -> list[int]:
    return [int(number) for number in array[1:-1].split(",")] if len(array) > 2 else []
