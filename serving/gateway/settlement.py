"""From ended attempts to records that the hub has, and from finished slices to money given back.

It prices nothing by itself (`cost_ufen`) and keeps nothing that the journal does not have.
"""

from __future__ import annotations

import asyncio
import logging

from serving.contract import (
    AllowanceClose,
    AllowanceGrant,
    AllowanceRefusal,
    AllowanceRequest,
    EndReason,
    UsageBatch,
    UsageRecord,
    UsageStatus,
    cost_ufen,
)
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError, unavailable
from serving.gateway.hub_client import Hub, HubError
from serving.gateway.journal_entries import Acked, Closed, Granted, Refused, Reserved, Settled
from serving.gateway.journal_file import Journal

MAX_BATCH = 500
_log = logging.getLogger(__name__)


class Settlement:
    """The sender of usage and the closer of allowances of one gateway."""

    def __init__(self, journal: Journal, hub: Hub, *, gateway_id: str, gateway_epoch: int, clock: Clock) -> None:
        self._journal = journal
        self._hub = hub
        self._gateway_id = gateway_id
        self._gateway_epoch = gateway_epoch
        self._clock = clock
        self._sending = asyncio.Lock()
        self._inherited: set[str] = set(journal.state.allowances)
        self._drawing: set[str] = set()

    async def draw(self, request: AllowanceRequest) -> AllowanceGrant | AllowanceRefusal:
        """Ask the hub for a slice. Raises: GatewayError 503 when it does not answer; the draw is then given back."""
        self._drawing.add(request.idempotency_key)
        try:
            return await self._hub.draw_allowance(request)
        except HubError as error:
            _log.warning("no allowance for %s: %s", request.organisation_id, error)
            text = "the hub does not answer, so no money can be set aside for this request; retry later"
            raise unavailable("hub_unavailable", text, retry_after_s=5) from error
        finally:
            self._drawing.discard(request.idempotency_key)

    def record(self, usage: UsageRecord, spent_ufen: int) -> None:
        """Journal the end of an attempt and queue its record for the hub, even when the disk refuses the line."""
        entry = Settled(seq=self._journal.state.next_seq, cost_ufen=spent_ufen, record=usage)
        try:
            self._journal.append(entry)
        except GatewayError as error:
            _log.error("record %d is kept in memory only: %s", entry.seq, error.message)
            self._journal.state.apply(entry)

    def settle_inherited(self) -> int:
        """Settle the attempts that a former process left open, from the last usage seen; return how many."""
        state = self._journal.state
        for reserved in list(state.attempts.values()):
            progress = state.progress.get((reserved.request_id, reserved.attempt))
            counts = (0, 0, 0)
            if progress is not None:
                counts = (progress.prompt_tokens, progress.cached_tokens, progress.completion_tokens)
            allowance = state.allowances.get(reserved.allowance_id)
            cost = cost_ufen(allowance.prices, *counts) if allowance else 0
            self.record(_restart_record(reserved, counts, ended_at=self._clock.now_us()), cost)
        return len(state.unsent)

    async def send_usage(self) -> None:
        """Send every record so far in batches; later ones go along only where they fill one, as small ones cost more.

        Raises: HubError; GatewayError when the journal cannot be written.
        """
        async with self._sending:
            state = self._journal.state
            due_seq = state.next_seq
            while state.unsent and (min(state.unsent) < due_seq or len(state.unsent) >= MAX_BATCH):
                first_seq, records = state.unsent_records(MAX_BATCH)
                batch = UsageBatch(self._gateway_id, self._gateway_epoch, first_seq, records)
                reply = await self._hub.post_usage(batch)
                for rejected in reply.rejected:
                    _log.error("the hub rejected usage record %d for good: %s", rejected.seq, rejected.code)
                if reply.through_seq < first_seq:
                    raise HubError(f"the hub acknowledged usage through {reply.through_seq}, below {first_seq}")
                # No further than was sent: a hub that knows this gateway from before its journal was lost may be ahead.
                self._journal.append(Acked(min(reply.through_seq, first_seq + len(records) - 1)))

    async def close_allowances(self, finished: list[str]) -> list[str]:
        """Give back slices whose records the hub has; return those closed. Raises: HubError."""
        closed = []
        for allowance_id in finished:
            allowance = self._journal.state.allowances.get(allowance_id)
            if allowance is None or allowance.last_seq > self._journal.state.acked_seq:
                continue
            through_seq = self._journal.state.acked_seq
            await self._close(AllowanceClose(allowance_id, allowance.spent_ufen, through_seq))
            closed.append(allowance_id)
        return closed

    async def close_inherited(self) -> None:
        """Give back what a former process held, and slices whose grant was lost on the way. Raises: HubError."""
        for key, request in list(self._journal.state.draws.items()):
            if key not in self._drawing:
                await self._recover_draw(key, request)
        if self._inherited:
            self._inherited -= set(await self.close_allowances(sorted(self._inherited)))

    async def _recover_draw(self, key: str, request: AllowanceRequest) -> None:
        """Ask again with the same key: the hub repeats its first answer, and the slice can be given back unused."""
        try:
            answer = await self._hub.draw_allowance(request)
        except HubError as error:
            if error.status is None or error.status >= 500:
                raise
            _log.error("the hub will not repeat its answer to draw %s: %s", key, error)
            self._journal.append(Refused(key))
            return
        if isinstance(answer, AllowanceGrant):
            self._journal.append(Granted(key, answer, prices=()))
            self._inherited.add(answer.allowance_id)
        else:
            self._journal.append(Refused(key))

    async def _close(self, close: AllowanceClose) -> None:
        try:
            await self._hub.close_allowance(close)
        except HubError as error:
            if error.status not in (404, 410):
                raise
            _log.error("the hub does not know allowance %s any more: %s", close.allowance_id, error)
        self._journal.append(Closed(close.allowance_id))


def _restart_record(reserved: Reserved, counts: tuple[int, int, int], *, ended_at: int) -> UsageRecord:
    prompt_tokens, cached_tokens, completion_tokens = counts
    return UsageRecord(
        request_id=reserved.request_id,
        attempt=reserved.attempt,
        allowance_id=reserved.allowance_id,
        organisation_id=reserved.organisation_id,
        key_id=reserved.key_id,
        cost_centre=reserved.cost_centre,
        version_id=reserved.version_id,
        digest=reserved.digest,
        price_version_id=reserved.price_version_id,
        replica_id=reserved.replica_id,
        replica_epoch=reserved.replica_epoch,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        started_at=reserved.started_at,
        ended_at=max(ended_at, reserved.started_at),
        end_reason=EndReason.GATEWAY_RESTART,
        status=UsageStatus.PARTIAL,
        disputed=False,
    )
