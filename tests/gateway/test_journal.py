"""The journal: replay, torn tails, damage, compaction, one owner."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from serving.contract import AllowanceGrant, AllowanceRequest, EndReason, UsageRecord, UsageStatus, dumps
from serving.gateway import journal_file
from serving.gateway.errors import GatewayError
from serving.gateway.journal_entries import (
    Acked,
    Cancelled,
    Closed,
    Drawn,
    Entry,
    Granted,
    Progressed,
    Reserved,
    Settled,
)
from serving.gateway.journal_file import Journal, JournalError
from serving.gateway.journal_state import JournalState
from serving.gateway.quick_json import encode_message
from tests.gateway.samples import PRICES


def reserved(number: int) -> Reserved:
    return Reserved(f"req_{number}", 1, "alw_1", "org", "key", None, "ver", "d", "prc_1", "rep", 1, 7)


def settled(number: int, seq: int) -> Settled:
    record = UsageRecord(
        request_id=f"req_{number}",
        attempt=1,
        allowance_id="alw_1",
        organisation_id="org",
        key_id="key",
        cost_centre="焊接",
        version_id="ver",
        digest="d",
        price_version_id="prc_1",
        replica_id="rep",
        replica_epoch=1,
        prompt_tokens=3,
        cached_tokens=0,
        completion_tokens=4,
        started_at=7,
        ended_at=8,
        end_reason=EndReason.STOP,
        status=UsageStatus.COMPLETE,
        disputed=False,
    )
    return Settled(seq=seq, cost_ufen=100, record=record)


DRAW = AllowanceRequest("gw", 1, "draw_1", "org", None, "prc_1", 5)
LOST = AllowanceRequest("gw", 1, "draw_2", "org", None, "prc_1", 5)
ENTRIES: list[Entry] = [
    Drawn(DRAW),
    Granted("draw_1", AllowanceGrant("alw_1", 5000, 99), PRICES),
    reserved(1),
    reserved(2),
    reserved(3),
    Progressed("req_2", 1, 3, 0, 9),
    settled(1, 1),
    Cancelled("req_3", 1),
    reserved(4),
    settled(4, 2),
    Acked(1),
    Drawn(LOST),
]


def write(path: Path, entries: list[Entry]) -> JournalState:
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    journal.close()
    return journal.state


def test_replay_gives_what_was_open(tmp_path: Path) -> None:
    live = write(tmp_path / "j", ENTRIES)
    journal = Journal(tmp_path / "j")
    assert journal.state == live
    assert list(journal.state.attempts) == [("req_2", 1)]
    assert journal.state.progress[("req_2", 1)].completion_tokens == 9
    assert journal.state.unsent_records(500) == (2, (settled(4, 2).record,))
    assert journal.state.draws == {"draw_2": LOST}
    assert (journal.state.allowances["alw_1"].spent_ufen, journal.state.next_seq) == (200, 3)
    journal.close()


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_torn_tail_is_the_last_entry_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    write(path, ENTRIES)
    os.truncate(path, path.stat().st_size - cut)
    journal = Journal(path)
    assert journal.state.draws == {}
    assert journal.state.unsent
    journal.append(Drawn(LOST))
    journal.close()
    again = Journal(path)
    assert again.state.draws == {"draw_2": LOST}
    again.close()


def test_damage_elsewhere_is_said(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ENTRIES)
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="line 1 is damaged"):
        Journal(path)


def test_what_is_finished_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "COMPACT_ABOVE_BYTES", 4000)
    path = tmp_path / "j"
    journal = Journal(path)
    for entry in ENTRIES[:2]:
        journal.append(entry)
    for number in range(200):
        journal.append(reserved(number))
        journal.append(settled(number, number + 1))
        journal.append(Acked(number + 1))
    assert path.stat().st_size < 6000
    asyncio.run(journal.durable())
    journal.append(Closed("alw_1"))
    journal.close()
    again = Journal(path)
    assert (again.state.allowances, again.state.next_seq, again.state.acked_seq) == ({}, 201, 200)
    again.close()


def test_a_full_disk_refuses_and_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    real_write = os.write

    def half_write(fd: int, line: bytes) -> int:
        return real_write(fd, line[: len(line) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", half_write)
        with pytest.raises(GatewayError) as refused:
            journal.append(reserved(1))
    assert (refused.value.status, refused.value.code) == (503, "journal_unavailable")
    assert journal.state.attempts == {}
    journal.append(reserved(2))
    journal.close()
    again = Journal(path)
    assert list(again.state.attempts) == [("req_2", 1)]
    again.close()


def test_what_is_written_is_what_the_contract_writes() -> None:
    assert [encode_message(entry) for entry in ENTRIES] == [dumps(entry).encode() for entry in ENTRIES]


def test_one_journal_has_one_owner(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(JournalError, match="held by another gateway"):
        Journal(tmp_path / "j")
    journal.close()


def test_lines_wait_for_company_until_somebody_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    monkeypatch.setattr(journal_file, "GATHER_S", 0.05)
    journal = Journal(tmp_path / "j")

    async def come_one_by_one() -> None:
        waiters = []
        for _ in range(10):
            waiters.append(journal.synced())
            await asyncio.sleep(0.001)
        assert syncs == []
        await asyncio.gather(*waiters)
        assert len(syncs) == 1
        monkeypatch.setattr(journal_file, "GATHER_S", 60.0)
        early = journal.synced()
        journal.hurry()
        await asyncio.sleep(0)  # the flush begins
        late = journal.synced()
        await early
        assert not late.done()
        journal.hurry()
        await late
        assert len(syncs) == 3

    asyncio.run(come_one_by_one())
    journal.close()


def test_concurrent_waiters_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    real_sync = os.fdatasync

    def count_sync(fd: int) -> None:
        syncs.append(fd)
        real_sync(fd)

    monkeypatch.setattr(os, "fdatasync", count_sync)
    journal = Journal(tmp_path / "j")

    async def wait_for_all() -> None:
        await asyncio.gather(*(journal.durable() for _ in range(50)))

    asyncio.run(wait_for_all())
    assert 1 <= len(syncs) <= 3
    journal.close()


def test_a_disk_that_fails_refuses_who_waits_and_nobody_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    journal = Journal(tmp_path / "j")

    async def wait_twice() -> None:
        journal.append(reserved(1))
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            with pytest.raises(GatewayError) as refused:
                await journal.durable()
        assert (refused.value.status, refused.value.code) == (503, "journal_unavailable")
        await journal.durable()

    asyncio.run(wait_twice())
    journal.close()
