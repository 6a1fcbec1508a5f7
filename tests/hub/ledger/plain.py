"""The ledger as a plain dictionary: what every operation should do, said again without a database.

It leaves choosing operations to the state machine. Nothing of `hub.ledger` but the movements' shape is used, so that
one mistake cannot stand on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hub.ledger.rules import Movement


@dataclass
class PlainAccount:
    """Four sums, a version and a rule: `debit` or `credit` may not run ahead of the other side."""

    limit: str = ""
    dp: int = 0
    d: int = 0
    cp: int = 0
    c: int = 0
    version: int = 0

    def is_broken(self) -> bool:
        """Say whether a rule of the account is broken."""
        over = {"debit": self.dp + self.d > self.c, "credit": self.cp + self.c > self.d, "": False}
        return over[self.limit] or min(self.dp, self.d, self.cp, self.c) < 0


@dataclass
class PlainLedger:
    """All accounts, all movements that were taken, and what ended or reversed which."""

    accounts: dict[str, PlainAccount]
    taken: dict[str, tuple[str, Movement]] = field(default_factory=dict)
    groups: dict[str, list[Movement]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    reversed: set[str] = field(default_factory=set)
    lease_ends: dict[str, datetime] = field(default_factory=dict)

    def post(self, group: str, movements: Sequence[Movement], now: datetime) -> str:
        """Take a group and return '', or the code of the refusal with nothing changed."""
        known = self.groups.get(group)
        if known is not None or any(movement.id in self.taken for movement in movements):
            return "" if known == list(movements) else "transfer_conflict"
        before = self._copy()
        for movement in movements:
            code = self._take(group, movement, now)
            if code:
                self._restore(before)
                return code
        self.groups[group] = list(movements)
        return ""

    def open_holds(self) -> list[str]:
        """Return the ids of holds that nothing has ended."""
        return [key for key, (_, held) in self.taken.items() if held.kind == "pending" and key not in self.ended]

    def moved(self) -> list[str]:
        """Return the ids of what moved money."""
        return [key for key, (_, movement) in self.taken.items() if movement.kind in ("single", "post")]

    def _take(self, group: str, movement: Movement, now: datetime) -> str:
        debit, credit = self.accounts[movement.debit_id], self.accounts[movement.credit_id]
        amount = movement.amount_fen
        if movement.kind == "single":
            code = self._reverse(movement) if movement.reverses_id else ""
            if code:
                return code
            debit.d += amount
            credit.c += amount
        elif movement.kind == "pending":
            debit.dp += amount
            credit.cp += amount
            if movement.lease_s:
                self.lease_ends[movement.id] = now + timedelta(seconds=movement.lease_s)
        else:
            code = self._end(movement, debit, credit, now)
            if code:
                return code
        debit.version += 1
        credit.version += 1
        if debit.is_broken() or credit.is_broken():
            return "account_limit"
        self.taken[movement.id] = (group, movement)
        return ""

    def _end(self, movement: Movement, debit: PlainAccount, credit: PlainAccount, now: datetime) -> str:
        key = movement.pending_id or ""
        held = self.taken[key][1].amount_fen
        if movement.amount_fen > held:
            return "invalid_value"
        if key in self.ended:
            return "hold_already_resolved"
        lapsed = key in self.lease_ends and self.lease_ends[key] <= now
        if movement.kind == "post" and lapsed:
            return "hold_expired"
        if movement.code == "expired" and not lapsed:
            return "hold_expired"
        self.ended.add(key)
        debit.dp -= held
        credit.cp -= held
        if movement.kind == "post":
            debit.d += movement.amount_fen
            credit.c += movement.amount_fen
        return ""

    def _reverse(self, movement: Movement) -> str:
        key = movement.reverses_id or ""
        if key in self.reversed or self.taken[key][1].amount_fen != movement.amount_fen:
            return "not_reversible"
        self.reversed.add(key)
        return ""

    def _copy(self) -> dict[str, object]:
        accounts = {name: PlainAccount(**vars(account)) for name, account in self.accounts.items()}
        return {
            "accounts": accounts,
            "taken": dict(self.taken),
            "ended": set(self.ended),
            "reversed": set(self.reversed),
            "lease_ends": dict(self.lease_ends),
        }

    def _restore(self, before: dict[str, object]) -> None:
        for name, value in before.items():
            setattr(self, name, value)
