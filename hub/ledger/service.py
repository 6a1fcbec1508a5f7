"""Posts groups of transfers, all or nothing; with `accounts`, `leases` and `closing` the only writer of the ledger.

It leaves why money moves to the rooms that build the groups, and proofs over the books to `hub.ledger.invariants`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from hub.clock import from_us, to_us
from hub.database import find_connection
from hub.errors import NotFoundError
from hub.ledger import at_once, statements
from hub.ledger.accounts import find_account, open_account
from hub.ledger.books import Books, Group, Plan, Posted
from hub.ledger.planning import build_row, is_stored, plan_group
from hub.ledger.rules import Movement, PeriodClosedError, check_movement
from hub.ledger.tables import Account, ClosedMonth, Transfer

__all__ = [
    "Group",
    "Posted",
    "find_account",
    "find_transfer",
    "find_transfers",
    "list_transfers",
    "open_account",
    "post_group",
    "post_groups",
]


def find_transfer(session: Session, transfer_id: str) -> Transfer | None:
    """Return a transfer by its maker's id."""
    return session.scalar(select(Transfer).where(Transfer.id == transfer_id))


def find_transfers(session: Session, transfer_ids: Sequence[str]) -> dict[str, Transfer]:
    """Return the transfers of these makers' ids that exist, by id."""
    return {row.id: row for row in session.scalars(select(Transfer).where(Transfer.id.in_(transfer_ids)))}


def list_transfers(session: Session, business_id: str) -> list[Transfer]:
    """Return every transfer made for one business row, in order."""
    return list(session.scalars(select(Transfer).where(Transfer.business_id == business_id).order_by(Transfer.seq)))


class NewTransfers(Sequence[Transfer]):
    """A group's transfers as just written, each built when asked for, because most callers never look.

    They belong to no session and have no `seq`, which only the database knows.
    """

    def __init__(self, group: Group) -> None:
        self._group = group

    def __len__(self) -> int:
        return len(self._group.movements)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        movement, moment = self._group.movements[position], to_us(self._group.posted.now)
        row = build_row(movement, self._group, position=position, moment=moment)
        times = {"event_at": from_us(row["event_at"]), "recorded_at": from_us(row["recorded_at"])}
        return Transfer(**{**row, **times})


def post_group(session: Session, group_id: str, movements: Sequence[Movement], posted: Posted) -> Sequence[Transfer]:
    """Post all movements in order or none; the same group again returns what is stored and changes nothing.

    Raises:
        AccountLimitError: a limited account would be overdrawn; names account, available and needed fen.
        TransferConflictError: an id or the group exists with other content.
        HoldResolvedError, HoldExpiredError: a hold was ended before, or its lease ran out.
        PeriodClosedError: the business happened in a closed month.
        ReversalError: not a posted transfer, or reversed before.
        InvalidValueError: a movement that makes no sense, or a post above its hold.
    """
    group = Group(group_id, movements, posted)
    if _post(session, [group]) == [True]:
        return NewTransfers(group)
    return list(session.scalars(select(Transfer).where(Transfer.group_id == group_id).order_by(Transfer.position)))


def post_groups(session: Session, groups: Sequence[Group]) -> list[bool]:
    """Post many groups with one statement, or a few, and say of each whether it was new; a refusal refuses all.

    All accounts are locked in id order before anything is read or inserted (foreign keys first, or locking group by
    group, would deadlock on PostgreSQL), and every rule is checked before anything is written: a refusal leaves the
    ledger as it was, even where the caller turns it into an answer and commits.

    Raises: as `post_group`.
    """
    return _post(session, groups)


def _post(session: Session, groups: Sequence[Group]) -> list[bool]:
    for group in groups:
        for movement in group.movements:
            check_movement(movement)
    connection = find_connection(session)
    new = at_once.post_at_once(connection, groups) if at_once.can_post_at_once(groups) else None
    if new is None:
        new = _post_by_plan(session, groups)
    if session.identity_map:
        _refresh_accounts(session, connection, groups)
    return new


def _post_by_plan(session: Session, groups: Sequence[Group]) -> list[bool]:
    books, plan, new = _open_books(session, groups), Plan(), []
    for group in groups:
        new.append(not is_stored(books, group))
        if new[-1]:
            plan_group(books, group, plan)
    if plan.transfers:
        statements.write_plan(find_connection(session), plan)
    return new


def _open_books(session: Session, groups: Sequence[Group]) -> Books:
    movements = [movement for group in groups for movement in group.movements]
    wanted = {name for movement in movements for name in (movement.debit_id, movement.credit_id)}
    months = {group.posted.month for group in groups}
    accounts, closed = statements.lock_accounts(find_connection(session), wanted, months)
    for name in sorted(wanted - accounts.keys()):
        raise NotFoundError.of("account", name)
    books = Books(accounts)
    statements.read_stored(
        find_connection(session),
        books,
        ids=[movement.id for movement in movements],
        groups=[group.id for group in groups],
        holds=[movement.pending_id for movement in movements if movement.pending_id is not None],
        reversed_ids=[movement.reverses_id for movement in movements if movement.reverses_id is not None],
    )
    if closed is not None:
        _check_open(session, books, groups)
    return books


def _check_open(session: Session, books: Books, groups: Sequence[Group]) -> None:
    """A repeat of what was posted while the month was open is still answered; anything new in it is refused."""
    closed = set(session.scalars(select(ClosedMonth.month)))
    for group in groups:
        month = group.posted.month
        if month in closed and not is_stored(books, group):
            raise PeriodClosedError(
                f"Month {month} is closed; date the posting in an open month.",
                f"{month} 月份已关账，请记入未关账月份。",
                field="event_at",
                month=month,
            )


def _refresh_accounts(session: Session, connection: Connection, groups: Sequence[Group]) -> None:
    """Show new sides and version on account rows that the session has loaded, as if it had read them again."""
    names = {name for group in groups for one in group.movements for name in (one.debit_id, one.credit_id)}
    keys = {name: Account.__mapper__.identity_key_from_primary_key((name,)) for name in names}
    loaded = {name: session.identity_map.get(key) for name, key in keys.items()}
    known = {name: row for name, row in loaded.items() if row is not None}
    if not known:
        return
    for account_id, *values in statements.read_sides(connection, known):
        for name, value in zip(statements.SIDES, values, strict=True):
            set_committed_value(known[account_id], name, value)
