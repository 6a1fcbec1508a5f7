"""Usage and allowances on their way to the hub, without processes."""

import asyncio
from pathlib import Path

import pytest

from serving.contract import (
    AllowanceClose,
    AllowanceGrant,
    AllowanceRequest,
    EndReason,
    RejectedUsage,
    UsageBatch,
    UsageReply,
)
from serving.gateway.clock import Clock
from serving.gateway.hub_client import HubClient, HubError
from serving.gateway.journal_entries import Drawn, Granted
from serving.gateway.journal_file import Journal
from serving.gateway.settlement import MAX_BATCH, Settlement
from tests.gateway.samples import PRICES
from tests.gateway.test_journal import reserved, settled


class MemoryHub(HubClient):
    """A hub that answers from memory; `accept` is how many records of a batch it takes."""

    def __init__(self) -> None:
        self.accept = MAX_BATCH
        self.batches: list[UsageBatch] = []
        self.closed: list[AllowanceClose] = []
        self.close_status: int | None = None

    async def post_usage(self, batch: UsageBatch) -> UsageReply:
        self.batches.append(batch)
        rejected = (RejectedUsage(batch.first_seq, "unknown_key"),) if self.accept else ()
        return UsageReply(batch.first_seq + min(self.accept, len(batch.records)) - 1, rejected)

    async def close_allowance(self, close: AllowanceClose) -> None:
        if self.close_status is not None:
            raise HubError("no", self.close_status)
        self.closed.append(close)

    async def draw_allowance(self, request: AllowanceRequest) -> AllowanceGrant:
        return AllowanceGrant(f"of_{request.idempotency_key}", 10, 99)


def start(folder: Path, *, epoch: int = 1) -> tuple[Journal, MemoryHub, Settlement]:
    journal, hub = Journal(folder / "j"), MemoryHub()
    clock = Clock(now_us=lambda: 50, monotonic_s=lambda: 0.0)
    return journal, hub, Settlement(journal, hub, gateway_id="gw", gateway_epoch=epoch, clock=clock)


def grant(journal: Journal) -> None:
    journal.append(Granted("draw_1", AllowanceGrant("alw_1", 5000, 99), PRICES))


def test_batches_are_bounded_and_resume_where_the_hub_stopped(tmp_path: Path) -> None:
    journal, hub, settlement = start(tmp_path)
    for number in range(1200):
        settlement.record(settled(number, 0).record, 1)
    hub.accept = 300
    asyncio.run(settlement.send_usage())
    assert [batch.first_seq for batch in hub.batches] == [1, 301, 601, 901]
    assert max(len(batch.records) for batch in hub.batches) == MAX_BATCH
    assert journal.state.unsent == {}
    journal.close()


def test_what_ends_while_a_batch_is_sent_waits_for_the_next_time(tmp_path: Path) -> None:
    journal, hub, settlement = start(tmp_path)
    settlement.record(settled(0, 0).record, 1)
    number = 0

    async def post_while_calls_end(batch: UsageBatch) -> UsageReply:
        nonlocal number
        for _ in range(20):
            number += 1
            settlement.record(settled(number, 0).record, 1)
        return await MemoryHub.post_usage(hub, batch)

    hub.post_usage = post_while_calls_end  # type: ignore[method-assign]
    asyncio.run(settlement.send_usage())
    assert [len(batch.records) for batch in hub.batches] == [1]
    asyncio.run(settlement.send_usage())
    assert [len(batch.records) for batch in hub.batches] == [1, 20]
    journal.close()


def test_a_hub_that_is_far_ahead_of_a_lost_journal_still_gets_every_record(tmp_path: Path) -> None:
    journal, hub, settlement = start(tmp_path)
    for number in range(MAX_BATCH + 1):
        settlement.record(settled(number, 0).record, 1)

    async def post_to_one_ahead(batch: UsageBatch) -> UsageReply:
        if not hub.batches:
            settlement.record(settled(MAX_BATCH + 1, 0).record, 1)  # ends while the first batch is sent
        await MemoryHub.post_usage(hub, batch)
        return UsageReply(9_999)

    hub.post_usage = post_to_one_ahead  # type: ignore[method-assign]
    for _ in range(2):
        asyncio.run(settlement.send_usage())
    sent = [record.request_id for batch in hub.batches for record in batch.records]
    assert sent == [f"req_{number}" for number in range(MAX_BATCH + 2)]
    assert (journal.state.unsent, journal.state.acked_seq) == ({}, MAX_BATCH + 2)
    journal.close()


def test_a_hub_that_takes_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    journal, hub, settlement = start(tmp_path)
    settlement.record(settled(1, 0).record, 1)
    hub.accept = 0
    with pytest.raises(HubError, match="below 1"):
        asyncio.run(settlement.send_usage())
    assert len(hub.batches) == 1
    journal.close()


def test_a_slice_is_closed_only_after_its_records_arrived(tmp_path: Path) -> None:
    journal, hub, settlement = start(tmp_path)
    grant(journal)
    settlement.record(settled(1, 0).record, 70)
    assert asyncio.run(settlement.close_allowances(["alw_1"])) == []
    asyncio.run(settlement.send_usage())
    assert asyncio.run(settlement.close_allowances(["alw_1"])) == ["alw_1"]
    assert hub.closed == [AllowanceClose("alw_1", 70, 1)]
    assert journal.state.allowances == {}
    journal.close()


@pytest.mark.parametrize(("status", "kept"), [(404, False), (409, True), (None, True)])
def test_a_slice_the_hub_forgot_is_not_kept(tmp_path: Path, status: int | None, kept: bool) -> None:
    journal, hub, settlement = start(tmp_path)
    grant(journal)
    hub.close_status = status if status is not None else 503
    if kept:
        with pytest.raises(HubError):
            asyncio.run(settlement.close_allowances(["alw_1"]))
    else:
        asyncio.run(settlement.close_allowances(["alw_1"]))
    assert ("alw_1" in journal.state.allowances) is kept
    journal.close()


def test_what_a_former_process_left_is_settled_and_given_back(tmp_path: Path) -> None:
    journal, _, _ = start(tmp_path)
    grant(journal)
    journal.append(reserved(1))
    journal.append(Drawn(AllowanceRequest("gw", 1, "draw_2", "org", None, "prc_1", 5)))
    journal.close()
    journal, hub, settlement = start(tmp_path, epoch=2)
    assert settlement.settle_inherited() == 1
    asyncio.run(settlement.send_usage())
    asyncio.run(settlement.close_inherited())
    assert [record.end_reason for record in hub.batches[0].records] == [EndReason.GATEWAY_RESTART]
    assert [close.allowance_id for close in hub.closed] == ["alw_1", "of_draw_2"]
    assert (journal.state.draws, journal.state.allowances) == ({}, {})
    journal.close()
