"""What the journal's entries mean together: open attempts, unsent records, open allowances, lost draws.

The same reducer runs live and on replay, so a compacted journal and a replayed one cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from serving.contract import AllowanceRequest, SnapshotPrice, UsageRecord
from serving.gateway.journal_entries import (
    Acked,
    Cancelled,
    Closed,
    Counted,
    Drawn,
    Entry,
    Granted,
    Opened,
    Progressed,
    Refused,
    Reserved,
    Settled,
)


@dataclass
class OpenAllowance:
    """A slice not yet given back: what it has spent and the last record that drew on it."""

    allowance_id: str
    prices: tuple[SnapshotPrice, ...]
    spent_ufen: int = 0
    last_seq: int = 0


@dataclass
class JournalState:
    """The living content of a journal."""

    attempts: dict[tuple[str, int], Reserved] = field(default_factory=dict)
    progress: dict[tuple[str, int], Progressed] = field(default_factory=dict)
    unsent: dict[int, Settled] = field(default_factory=dict)
    allowances: dict[str, OpenAllowance] = field(default_factory=dict)
    draws: dict[str, AllowanceRequest] = field(default_factory=dict)
    next_seq: int = 1
    acked_seq: int = 0

    @property
    def owes_something(self) -> bool:
        """Return whether the hub has not heard of everything yet."""
        return bool(self.attempts or self.unsent or self.allowances or self.draws)

    def apply(self, entry: Entry) -> None:
        """Take one entry into account."""
        match entry:
            case Reserved() | Progressed() | Cancelled():
                self._apply_attempt(entry)
            case Settled():
                self._apply_settled(entry)
            case Acked():
                self.acked_seq = max(self.acked_seq, entry.through_seq)
                self.unsent = {seq: settled for seq, settled in self.unsent.items() if seq > self.acked_seq}
            case Counted():
                self.next_seq, self.acked_seq = entry.next_seq, entry.acked_seq
            case _:
                self._apply_allowance(entry)

    def entries(self) -> Iterator[Entry]:
        """Return the shortest list of entries that rebuilds this state."""
        yield Counted(next_seq=self.next_seq, acked_seq=self.acked_seq)
        for request in self.draws.values():
            yield Drawn(request=request)
        spent_later: dict[str, int] = {}
        for settled in self.unsent.values():
            allowance_id = settled.record.allowance_id
            spent_later[allowance_id] = spent_later.get(allowance_id, 0) + settled.cost_ufen
        for allowance in self.allowances.values():
            spent_ufen = allowance.spent_ufen - spent_later.get(allowance.allowance_id, 0)
            yield Opened(allowance.allowance_id, spent_ufen, allowance.last_seq, allowance.prices)
        yield from self.unsent.values()
        yield from self.attempts.values()
        yield from self.progress.values()

    def unsent_records(self, limit: int) -> tuple[int, tuple[UsageRecord, ...]]:
        """Return the sequence number of the oldest unsent record and up to `limit` records from there."""
        chosen = sorted(self.unsent)[:limit]
        return (chosen[0] if chosen else self.next_seq, tuple(self.unsent[seq].record for seq in chosen))

    def _apply_attempt(self, entry: Reserved | Progressed | Cancelled) -> None:
        key = (entry.request_id, entry.attempt)
        if isinstance(entry, Reserved):
            self.attempts[key] = entry
        elif isinstance(entry, Progressed):
            self.progress[key] = entry
        else:
            self._forget(key)

    def _apply_settled(self, entry: Settled) -> None:
        self._forget((entry.record.request_id, entry.record.attempt))
        self.unsent[entry.seq] = entry
        self.next_seq = max(self.next_seq, entry.seq + 1)
        allowance = self.allowances.get(entry.record.allowance_id)
        if allowance is not None:
            allowance.spent_ufen += entry.cost_ufen
            allowance.last_seq = max(allowance.last_seq, entry.seq)

    def _apply_allowance(self, entry: Entry) -> None:
        match entry:
            case Drawn():
                self.draws[entry.request.idempotency_key] = entry.request
            case Granted():
                self.draws.pop(entry.idempotency_key, None)
                opened = OpenAllowance(entry.grant.allowance_id, entry.prices)
                self.allowances[opened.allowance_id] = opened
            case Refused():
                self.draws.pop(entry.idempotency_key, None)
            case Opened():
                opened = OpenAllowance(entry.allowance_id, entry.prices, entry.spent_ufen, entry.last_seq)
                self.allowances[opened.allowance_id] = opened
            case Closed():
                self.allowances.pop(entry.allowance_id, None)

    def _forget(self, key: tuple[str, int]) -> None:
        self.attempts.pop(key, None)
        self.progress.pop(key, None)
