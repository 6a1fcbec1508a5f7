"""Money slices in memory: every request reserves its worst cost from one slice before it is sent.

The sum of reservations and spendings of a slice never exceeds what the hub granted, so nothing can be overspent by
concurrency. A slice is replaced after a fifth of its life: four fifths are left for a silent hub. Sending usage and
giving slices back is left to `settlement`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serving.contract import AllowanceGrant, AllowanceRefusal, AllowanceRequest, SnapshotKey, SnapshotPrice
from serving.gateway.clock import Clock, iso_time
from serving.gateway.errors import ErrorType, GatewayError, Limit
from serving.gateway.journal_entries import Drawn, Granted, Refused
from serving.gateway.journal_file import Journal

SLICE_UFEN = 100_000_000
# Below this part of a slice the next one is drawn ahead of need.
_REFILL_BELOW = SLICE_UFEN // 4
_REFUSED_AHEAD_PAUSE_S = 5.0
_FRESH_PART = 5
_IDLE_US = 10_000_000
_FORGOTTEN_US = 600_000_000
"""A purse unused for so long needs no next slice: its old one goes back, so that it is billed."""
_MAX_DRAWS = 3
# A refusal is repeated from memory for this long, so that an empty account does not hammer the hub.
_REFUSAL_HOLDS_S = 1.0
_log = logging.getLogger(__name__)

Draw = Callable[[AllowanceRequest], Awaitable[AllowanceGrant | AllowanceRefusal]]


@dataclass
class Slice:
    """One allowance: granted = free + reserved + spent. From `renew_at` on it is used only where no fresher one is."""

    allowance_id: str
    amount_ufen: int
    expires_at: int
    renew_at: int
    reserved_ufen: int = 0
    spent_ufen: int = 0
    retired: bool = False

    @property
    def free_ufen(self) -> int:
        """Return what can still be reserved."""
        return self.amount_ufen - self.reserved_ufen - self.spent_ufen

    def is_open(self, now_us: int) -> bool:
        """Return whether new requests may reserve from it."""
        return not self.retired and self.expires_at > now_us


@dataclass(frozen=True)
class Hold:
    """A reservation of one request in one slice."""

    slice: Slice
    reserved_ufen: int


@dataclass
class _Purse:
    """All slices of one (organisation, budget, price version)."""

    organisation_id: str
    budget_id: str | None
    prices: tuple[SnapshotPrice, ...]
    slices: list[Slice] = field(default_factory=list)
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
    refill: asyncio.Task[None] | None = None
    ahead_not_before_s: float = 0.0
    refused_until_s: float = 0.0
    refused_ufen: int = 0
    refusal: AllowanceRefusal | None = None
    used_at: int = 0

    def is_over(self, now_us: int) -> bool:
        busy = self.drawing.locked() or (self.refill is not None and not self.refill.done())
        return not self.slices and not busy and now_us - self.used_at > _FORGOTTEN_US

    def open_slices(self, now_us: int) -> list[Slice]:
        return [piece for piece in self.slices if piece.is_open(now_us)]

    def fresh_slices(self, now_us: int) -> list[Slice]:
        return [piece for piece in self.open_slices(now_us) if piece.renew_at > now_us]


class Wallet:
    """Every purse of this gateway. `reclaim` sends all usage and gives finished slices back to the hub."""

    def __init__(
        self,
        journal: Journal,
        *,
        gateway_id: str,
        gateway_epoch: int,
        draw: Draw,
        reclaim: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._gateway_id = gateway_id
        self._gateway_epoch = gateway_epoch
        self._draw = draw
        self._reclaim = reclaim
        self._clock = clock
        self._purses: dict[tuple[str, str | None, str], _Purse] = {}

    async def reserve(self, key: SnapshotKey, prices: tuple[SnapshotPrice, ...], worst_ufen: int) -> Hold:
        """Reserve `worst_ufen` for one request of `key`.

        Raises: GatewayError 429 insufficient_quota with the hub's reason, 503 when the hub cannot be reached.
        """
        purse = self._purse(key, prices)
        purse.used_at = self._clock.now_us()
        hold = self._take(purse, worst_ufen)
        if hold is None:
            async with purse.drawing:
                hold = self._take(purse, worst_ufen) or await self._draw_and_take(purse, worst_ufen)
        self._refill_ahead(purse)
        return hold

    def settle(self, hold: Hold, cost_ufen: int) -> int:
        """Turn a reservation into spending; return what was spent.

        That is less than `cost_ufen` only where the slice had no more; the caller then marks the record as disputed.
        """
        available_ufen = hold.reserved_ufen + max(0, hold.slice.free_ufen)
        hold.slice.reserved_ufen -= hold.reserved_ufen
        spent_ufen = min(cost_ufen, available_ufen)
        hold.slice.spent_ufen += spent_ufen
        return spent_ufen

    def settle_part(self, hold: Hold, cost_ufen: int) -> tuple[int, Hold]:
        """Turn part of a reservation into spending; return what was spent and the reservation that is left."""
        spent_ufen = min(cost_ufen, hold.reserved_ufen)
        hold.slice.reserved_ufen -= spent_ufen
        hold.slice.spent_ufen += spent_ufen
        return spent_ufen, Hold(hold.slice, hold.reserved_ufen - spent_ufen)

    def release(self, hold: Hold) -> None:
        """Give a reservation back unused."""
        hold.slice.reserved_ufen -= hold.reserved_ufen

    def finished(self, *, closing: bool, hub_answers: bool = True) -> list[str]:
        """Return the ids of slices with nothing reserved that are over (all if `closing`).

        Over is what is retired, expired or drained, or old where a fresher slice is or, while the hub answers and could
        grant another, where nobody calls.
        """
        now_us = self._clock.now_us()
        found = []
        for purse in self._purses.values():
            spare = len(purse.open_slices(now_us)) > 1
            replaceable = bool(purse.fresh_slices(now_us)) or (hub_answers and now_us - purse.used_at >= _IDLE_US)
            for piece in purse.slices:
                over = closing or piece.retired or piece.expires_at <= now_us
                over = over or (spare and piece.free_ufen < _REFILL_BELOW // 4)
                if piece.reserved_ufen == 0 and (over or (replaceable and piece.renew_at <= now_us)):
                    piece.retired = True
                    found.append(piece.allowance_id)
        self._forget_unused(now_us)
        return found

    def _forget_unused(self, now_us: int) -> None:
        """Drop purses that nobody used for ten minutes: each price version of each firm has one."""
        idle = [name for name, purse in self._purses.items() if purse.is_over(now_us)]
        for name in idle:
            del self._purses[name]

    def drop(self, allowance_id: str) -> None:
        """Forget a slice that the hub took back."""
        for purse in self._purses.values():
            purse.slices = [piece for piece in purse.slices if piece.allowance_id != allowance_id]

    async def stop_refills(self) -> None:
        """Wait for the slices being drawn ahead, so that none is left behind."""
        await asyncio.gather(*(purse.refill for purse in self._purses.values() if purse.refill is not None))

    def _purse(self, key: SnapshotKey, prices: tuple[SnapshotPrice, ...]) -> _Purse:
        name = (key.organisation_id, key.budget_id, prices[0].price_version_id)
        found = self._purses.get(name)
        if found is None:
            found = self._purses[name] = _Purse(key.organisation_id, key.budget_id, prices)
        return found

    def _take(self, purse: _Purse, worst_ufen: int) -> Hold | None:
        """Reserve from a slice that has so much, from one past its renewal only where no other has."""
        now_us, found = self._clock.now_us(), None
        for piece in purse.slices:
            if not piece.is_open(now_us) or piece.free_ufen < worst_ufen:
                continue
            if found is None or found.renew_at <= now_us:
                found = piece
        if found is None:
            return None
        found.reserved_ufen += worst_ufen
        return Hold(slice=found, reserved_ufen=worst_ufen)

    async def _draw_and_take(self, purse: _Purse, worst_ufen: int) -> Hold:
        """Draw until a slice is large enough; if refused, give idle remainders back and try just enough once."""
        if self._clock.monotonic_s() < purse.refused_until_s and worst_ufen >= purse.refused_ufen:
            raise _quota_error(purse.refusal, purse, worst_ufen)
        hold, refusal = None, None
        for _ in range(_MAX_DRAWS):
            # A small grant may be the end of one of the hub's holds, so the next one can still be whole.
            refusal = await self._draw_slice(purse, max(worst_ufen, SLICE_UFEN))
            hold = self._take(purse, worst_ufen)
            if hold is not None or refusal is not None:
                break
        if hold is None:
            if self._retire_idle(purse):
                await self._reclaim()
            refusal = await self._draw_slice(purse, worst_ufen)
            hold = self._take(purse, worst_ufen)
        if hold is None:
            purse.refused_until_s = self._clock.monotonic_s() + _REFUSAL_HOLDS_S
            purse.refused_ufen, purse.refusal = worst_ufen, refusal
            raise _quota_error(refusal, purse, worst_ufen)
        return hold

    async def _draw_slice(self, purse: _Purse, want_ufen: int) -> AllowanceRefusal | None:
        request = AllowanceRequest(
            gateway_id=self._gateway_id,
            gateway_epoch=self._gateway_epoch,
            idempotency_key=f"draw_{uuid.uuid4().hex}",
            organisation_id=purse.organisation_id,
            budget_id=purse.budget_id,
            price_version_id=purse.prices[0].price_version_id,
            want_ufen=want_ufen,
        )
        self._journal.append(Drawn(request))
        answer = await self._draw(request)
        if isinstance(answer, AllowanceRefusal):
            self._journal.append(Refused(request.idempotency_key))
            return answer
        self._journal.append(Granted(request.idempotency_key, answer, purse.prices))
        now_us = self._clock.now_us()
        renew_at = now_us + max(0, answer.expires_at - now_us) // _FRESH_PART
        purse.slices.append(Slice(answer.allowance_id, answer.amount_ufen, answer.expires_at, renew_at))
        return None

    def _retire_idle(self, purse: _Purse) -> bool:
        """Retire slices too small for the request at hand, so that their remainder can be drawn as one piece."""
        idle = [piece for piece in purse.slices if piece.reserved_ufen == 0 and piece.free_ufen > 0]
        for piece in idle:
            piece.retired = True
        return bool(idle)

    def _retire_old(self, purse: _Purse) -> None:
        """Let old slices go back after a refusal: they may hold all that the firm has, and the next draw gets it."""
        now_us = self._clock.now_us()
        for piece in purse.slices:
            piece.retired |= piece.reserved_ufen == 0 and piece.renew_at <= now_us

    def _refill_ahead(self, purse: _Purse) -> None:
        now_us, free_ufen = self._clock.now_us(), 0
        for piece in purse.slices:
            if piece.is_open(now_us) and piece.renew_at > now_us:
                free_ufen += piece.free_ufen
        if free_ufen >= _REFILL_BELOW:
            return
        busy = purse.drawing.locked() or (purse.refill is not None and not purse.refill.done())
        if not busy and self._clock.monotonic_s() >= purse.ahead_not_before_s:
            purse.refill = asyncio.create_task(self._refill(purse))

    async def _refill(self, purse: _Purse) -> None:
        async with purse.drawing:
            try:
                refusal = await self._draw_slice(purse, SLICE_UFEN)
                reason = refusal.code if refusal else None
                if refusal is not None:
                    self._retire_old(purse)
            except GatewayError as error:
                reason = error.message
            if reason is not None:
                purse.ahead_not_before_s = self._clock.monotonic_s() + _REFUSED_AHEAD_PAUSE_S
                _log.info("no allowance ahead for %s: %s", purse.organisation_id, reason)


def _quota_error(refusal: AllowanceRefusal | None, purse: _Purse, worst_ufen: int) -> GatewayError:
    if refusal is None:
        free_ufen = sum(piece.free_ufen for piece in purse.slices)
        refusal = AllowanceRefusal("balance_too_low", "account balance", purse.organisation_id, 0, free_ufen, None)
    limit = Limit(
        refusal.limit,
        refusal.used + refusal.left,
        refusal.set_by,
        refusal.used,
        refusal.left,
        None if refusal.resets_at is None else iso_time(refusal.resets_at),
    )
    details = {"reason": refusal.code, "needed": worst_ufen}
    message = (
        f"limit {refusal.limit} set by {refusal.set_by}: {refusal.used} µfen used, {refusal.left} µfen left; "
        f"this request may cost up to {worst_ufen} µfen; top up, or ask for fewer max_tokens"
    )
    return GatewayError(429, "insufficient_quota", message, kind=ErrorType.QUOTA, limit=limit, details=details)
