"""Many groups as the arguments of `ledger_post_many`: lines of text, and sums of what each leg adds to its account.

Adding up here, before the lock, leaves the server one addition a leg. It leaves the call to `hub.ledger.at_once`.
"""

from collections.abc import Sequence

from hub.clock import to_us
from hub.ledger.books import Group
from hub.ledger.rules import Movement, fingerprint, lease_end
from hub.ledger.tables import TransferKind

FIELD, RECORD = "\x1f", "\x1e"
_FIELDS = 16
_DEBIT_PENDING, _DEBIT, _CREDIT_PENDING, _CREDIT = 1, 2, 3, 4


class Batch:
    """The arguments while they are built; `accounts` in the order of their ids."""

    def __init__(self, groups: Sequence[Group]) -> None:
        movements = [movement for group in groups for movement in group.movements]
        self.accounts = sorted({name for one in movements for name in (one.debit_id, one.credit_id)})
        self.ids = [movement.id for movement in movements]
        self.groups = [group.id for group in groups]
        self.months = sorted({group.posted.month for group in groups})
        # By account: its number, then how often and by what it was moved so far, and the most it needed.
        self._places = {name: number for number, name in enumerate(self.accounts, 1)}
        self._moves = {name: [0, 0, 0, 0, 0, -(2**62), -(2**62)] for name in self.accounts}
        self._legs: list[int] = []
        self._leases: list[str] = []
        self._lines = [line for group in groups for line in self._list_lines(group)]

    def is_plain(self) -> bool:
        """Say whether no text has a separator in it; the planner's way takes any text."""
        texts = RECORD.join((*self.ids, *self.groups, *self.accounts, *self._leases, *self._lines))
        count = len(self.ids) + len(self.groups) + len(self.accounts) + len(self._leases) + len(self._lines)
        return texts.count(RECORD) == count - 1 and texts.count(FIELD) == (_FIELDS - 1) * len(self._lines)

    def list_values(self) -> list[str]:
        """Return the arguments in the routine's order."""
        return [
            RECORD.join(self.accounts),
            _write_numbers([number for name in self.accounts for number in self._moves[name]]),
            RECORD.join(self.ids),
            _write_numbers(self._legs),
            RECORD.join(self._lines),
            RECORD.join(self._leases),
            RECORD.join(self.months),
            RECORD.join(self.groups),
        ]

    def _list_lines(self, group: Group) -> list[str]:
        posted = group.posted
        now = to_us(posted.now)
        event_at = now if posted.event_at is None else to_us(posted.event_at)
        lines = []
        for position, one in enumerate(group.movements):
            self._move(one, now)
            if one.lease_s is not None:
                self._leases += (one.id, str(lease_end(one, now)), str(now))
            lines.append(
                f"{one.id}{FIELD}{group.id}{FIELD}{position}{FIELD}{one.kind}{FIELD}{one.debit_id}{FIELD}"
                f"{one.credit_id}{FIELD}{one.amount_fen}{FIELD}{one.code}{FIELD}{posted.business_type}{FIELD}"
                f"{posted.business_id}{FIELD}{one.rule_version_id or ''}{FIELD}{one.price_version_id or ''}{FIELD}"
                f"{posted.actor_id}{FIELD}{event_at}{FIELD}{now}{FIELD}{fingerprint(one, group.id, position)}"
            )
        return lines

    def _move(self, one: Movement, now: int) -> None:
        held = one.kind is TransferKind.PENDING
        number = len(self._legs) // 20 + 1
        debit, credit = self._moves[one.debit_id], self._moves[one.credit_id]
        debit[0] += 1
        debit[_DEBIT_PENDING if held else _DEBIT] += one.amount_fen
        debit[5] = max(debit[5], debit[_DEBIT_PENDING] + debit[_DEBIT] - debit[_CREDIT])
        self._legs += (self._places[one.debit_id], number, 1, one.amount_fen, *debit[:5], now)
        credit[0] += 1
        credit[_CREDIT_PENDING if held else _CREDIT] += one.amount_fen
        credit[6] = max(credit[6], credit[_CREDIT_PENDING] + credit[_CREDIT] - credit[_DEBIT])
        self._legs += (self._places[one.credit_id], number, 0, one.amount_fen, *credit[:5], now)


def _write_numbers(numbers: Sequence[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
