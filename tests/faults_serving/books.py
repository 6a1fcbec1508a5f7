"""What must add up after faults on real engines: counters, the engines' witness, bills, and what clients saw."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from serving.contract import EndReason, Witness
from tests.faults_serving.greedy import Stream
from tests.faults_serving.yard import Engine, Yard


@dataclass
class Account:
    """Completion tokens of one engine: its counter, what of it was billed, and what nobody paid for.

    `own` are warm-up and probes. `cut` is what a killed engine had made beyond the bill of what it died with.
    """

    counted: int = 0
    billed: int = 0
    undelivered: int = 0
    own: int = 0
    cut: int = 0

    @property
    def unexplained(self) -> int:
        return self.counted - self.billed - self.undelivered - self.own


def account_survivor(yard: Yard, engine: Engine, seen: Iterable[Stream]) -> Account:
    """Return the account of a living engine, after its counters and its witness were found equal to the token."""
    reading = yard.reading(engine)
    assert reading is not None
    rows = [row for row in yard.rows(engine) if row.seq <= reading.through_seq]
    assert sum(row.completion_tokens for row in rows) == reading.completion_tokens
    assert sum(row.prompt_tokens for row in rows) == reading.prompt_tokens
    return _account(yard, rows, counted=reading.completion_tokens, delivered=_delivered(seen))


def account_killed(yard: Yard, engine: Engine, seen: Iterable[Stream]) -> Account:
    """Return the account of a killed engine from its witness; its counters died with it."""
    rows = yard.rows(engine)
    return _account(yard, rows, counted=sum(row.completion_tokens for row in rows), delivered=_delivered(seen))


def _account(yard: Yard, rows: list[Witness], *, counted: int, delivered: set[str]) -> Account:
    account = Account(counted)
    for row in rows:
        if row.allowance_id is None:
            account.own += row.completion_tokens
            continue
        billed = _billed(yard, row, delivered)
        account.billed += billed
        account.undelivered += row.completion_tokens - billed
        account.cut += row.completion_tokens - billed if row.cut else 0
    return account


def _billed(yard: Yard, row: Witness, delivered: set[str]) -> int:
    """Return what was billed of a call; never more than its engine counted."""
    record = yard.usage().get((row.request_id, row.attempt))
    if record is None:
        # Killed before the reservation was written, so nothing of it can have reached a client.
        assert row.request_id not in delivered, f"{row} was delivered and never recorded"
        return 0
    assert record.completion_tokens <= row.completion_tokens, (record, row)
    return record.completion_tokens


def _delivered(seen: Iterable[Stream]) -> set[str]:
    return {one.request_id for one in seen if one.pieces}


def count_duplicates(yard: Yard) -> int:
    """Return how many calls were told to the hub with more than one content."""
    sent = {record for batch in yard.world.hub.batches for record in batch.records}
    versions = Counter((record.request_id, record.attempt) for record in sent)
    return sum(count - 1 for count in versions.values())


def check_bills(yard: Yard, seen: Iterable[Stream], *, tokens: int) -> None:
    """Compare bills with what clients saw: whole streams to the token, others at least every piece."""
    billed: Counter[str] = Counter()
    for (request_id, _attempt), record in yard.usage().items():
        billed[request_id] += record.completion_tokens
    for one in seen:
        if one.whole:
            assert (one.told_tokens, billed[one.request_id]) == (tokens, tokens), one
        else:
            assert one.pieces <= billed[one.request_id] <= tokens, (one, billed[one.request_id])


def find_struck(yard: Yard, seen: Iterable[Stream], killed: Iterable[Engine]) -> tuple[list[Stream], list[Stream]]:
    """Return the streams whose engine was killed: those that had begun to speak, and those that had not."""
    engines = set(killed)
    spoke: set[str] = set()
    silent: set[str] = set()
    for (request_id, _attempt), record in yard.usage().items():
        if (record.replica_id, record.replica_epoch) in engines and record.end_reason is EndReason.UPSTREAM_DIED:
            (spoke if record.completion_tokens else silent).add(request_id)
    streams = list(seen)
    return [one for one in streams if one.request_id in spoke], [one for one in streams if one.request_id in silent]
