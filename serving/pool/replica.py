"""One replica: an engine process kept alive through start, warm-up, service and drain; where it runs is left to plans.

An engine is ready only after it has answered a long prompt: tiny first prompts have killed engines with SIGILL, and
/health says nothing of the engine core. While it serves, its pulse is felt.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from serving.contract import BASE_ENGINE_NAME, ObservedReplica, ReplicaState
from serving.launch import Handle, Launch
from serving.pool.artifacts import verify_base
from serving.pool.engine_client import EngineClient
from serving.pool.engine_command import CommandBuilder
from serving.pool.engine_process import EngineProcess
from serving.pool.errors import EngineError, EngineSilentError, PoolError, ReplicaFaultError
from serving.pool.memory import Memory
from serving.pool.placement import Planned
from serving.pool.pulse import Pulse
from serving.pool.remote_artifacts import RemoteArtifacts
from serving.pool.residency import Residency
from serving.pool.settings import Timing
from serving.pool.shelf import AdapterShelf

_WARM_TOKENS = 256
_ADOPTED_START_S = 30.0
_LOOKS_FOR_END = 5
_FIRST_START_MS = 30_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workshop:
    """What every replica of this controller works with; while `may_act` is false engines are left alone."""

    launch: Launch
    http: aiohttp.ClientSession
    build_command: CommandBuilder
    memory: Memory
    bases: RemoteArtifacts
    timing: Timing
    state: Path
    on_change: Callable[[], None]
    watch: Callable[["asyncio.Task[None]"], None]
    last_reading: Callable[["Replica"], Awaitable[None]]
    may_act: Callable[[], bool]


class Replica:
    """Owns one engine process at a time; each start is a new epoch. `planned` may be renewed while it runs."""

    def __init__(self, planned: Planned, shop: Workshop, adopted: Handle | None = None) -> None:
        self.planned = planned
        self.replica_id = planned.replica_id
        self.state = ReplicaState.STARTING
        self.process = EngineProcess(shop.launch, shop.build_command, shop.state, shop.timing)
        if adopted is not None:
            self.process.adopt(adopted)
        self._shop = shop
        self.queue_wait_ms = 0
        self.is_leaving = False
        """Its place ends, and another engine of its set takes its adapters over."""
        self._reason: str | None = None
        self._since_us = self._started_us = _now_us()
        self.residency = Residency(planned.replica_set.max_loras)
        self._backoff_s = shop.timing.backoff_first_s
        self._wanted: Mapping[str, Path] = {}
        self._wanted_changed = asyncio.Event()
        self._engine = self._make_client()
        self.shelf = self._empty_shelf()
        self._life = asyncio.create_task(self._live(), name=self.replica_id)
        shop.watch(self._life)
        self._end: asyncio.Task[None] | None = None
        self._ends_regardless = False

    def want_adapters(self, wanted: Mapping[str, Path]) -> None:
        """Set the adapters to be served here: verified folder by digest. One that leaves takes more, and drops none."""
        after = {**self._wanted, **wanted} if self.is_leaving else dict(wanted)
        if after != self._wanted:
            self._wanted = after
            self._wanted_changed.set()

    def stop(self, *, regardless: bool = False) -> "asyncio.Task[None]":
        """Drain and end it, `regardless` of whether we may act; repeated calls return the same task."""
        self._ends_regardless |= regardless
        if self._end is None:
            self._end = asyncio.create_task(self._drain(), name=f"{self.replica_id}-stop")
            self._shop.watch(self._end)
        return self._end

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._end is not None

    async def leave(self) -> None:
        """Stop looking after it and let the process run on."""
        await _cancel(self._life)

    @property
    def engine(self) -> EngineClient:
        """What speaks to the engine of the current epoch."""
        return self._engine

    def observe(self) -> ObservedReplica:
        """The message about this replica; `device_ms` counts ready time over all epochs of the allocation."""
        return ObservedReplica(
            replica_id=self.replica_id,
            replica_epoch=self.process.epoch,
            set_id=self.planned.replica_set.set_id,
            slot_id=self.planned.slot.slot_id,
            allocation_epoch=self.planned.slot.allocation_epoch,
            url=self.process.url,
            state=self.state,
            reason_code=self._reason,
            since_at=self._since_us,
            device_ms=self._shop.memory.device_ms(self.replica_id, _now_us()),
        )

    def expected_at_us(self) -> int | None:
        """When it will probably be ready, by how long starts took so far; None unless it is starting."""
        if self.state not in (ReplicaState.STARTING, ReplicaState.WARMING):
            return None
        return self._started_us + (self._shop.memory.start_ms() or _FIRST_START_MS) * 1000

    async def _live(self) -> None:
        while not self.is_stopping():
            try:
                await self._live_one_epoch()
            except PoolError as fault:
                await self._recover(fault)
            except OSError as error:
                # A full disk or an unreadable folder is this replica's trouble, not that of the others.
                await self._recover(ReplicaFaultError("host_error", f"{type(error).__name__}: {error}"))

    async def _live_one_epoch(self) -> None:
        adopted = self.process.is_started()
        if not adopted:
            await self._start()
        self._engine = self._make_client()
        self.shelf = self._empty_shelf()
        self.residency = Residency(self.planned.replica_set.max_loras)
        await self._wait_up(_ADOPTED_START_S if adopted and self._was_ready() else self._shop.timing.start_timeout_s)
        self._set(ReplicaState.WARMING)
        await self._warm_up()
        self._shop.memory.mark_ready(self.replica_id, self.process.epoch, _now_us())
        if not adopted:
            self._shop.memory.mark_started(self.replica_id, (_now_us() - self._started_us) // 1000)
        self._set(ReplicaState.READY)
        await self._serve()

    async def _start(self) -> None:
        await self._await_lead()
        allocation_epoch = self.planned.slot.allocation_epoch
        self.process.epoch = self._shop.memory.next_epoch(self.replica_id, allocation_epoch)
        self._started_us = _now_us()
        self._set(ReplicaState.STARTING)
        wanted = self.planned.replica_set
        digest = wanted.weights_folder or wanted.base_digest
        model = await self._shop.bases.bring(wanted.uri, digest, lambda uri: verify_base(uri, digest))
        await self._await_lead()
        self._started_us = _now_us()  # how long a download took says nothing of the next start
        await self.process.start(self.planned, epoch=self.process.epoch, model=model)

    async def _wait_up(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not await self._engine.is_up():
            self._raise_if_ended()
            if time.monotonic() > deadline:
                raise ReplicaFaultError("engine_start_timeout", f"{self.replica_id} not up within {timeout_s:g} s")
            await asyncio.sleep(self._shop.timing.poll_s)

    async def _warm_up(self) -> None:
        models = await self._engine.list_models()
        self.shelf.adopt(frozenset(models) - {BASE_ENGINE_NAME})
        context_tokens = models.get(BASE_ENGINE_NAME) or _WARM_TOKENS
        prompt_tokens = min(_WARM_TOKENS, context_tokens - 8)
        timeout_s = self._shop.timing.warmup_timeout_s
        await self._engine.ask(BASE_ENGINE_NAME, prompt_tokens=prompt_tokens, timeout_s=timeout_s)

    async def _serve(self) -> None:
        """Feel the pulse beside the shelf's work: an engine that hangs while it loads is found like any other."""
        doubt = asyncio.Event()
        both = [asyncio.ensure_future(self._keep_shelf(doubt)), asyncio.ensure_future(self._keep_pulse(doubt))]
        try:
            await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _keep_shelf(self, doubt: asyncio.Event) -> None:
        """Bring the shelf to what is wanted, one sync after the other; a silent engine is left to the pulse."""
        while True:
            self._wanted_changed.clear()
            try:
                await self.shelf.sync(self._wanted)
            except EngineSilentError as error:
                _log.warning("replica %s: %s", self.replica_id, error)
                doubt.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._shop.timing.poll_s):
                    await self._wanted_changed.wait()

    async def _keep_pulse(self, doubt: asyncio.Event) -> None:
        """Raises: ReplicaFaultError when the process ended, EngineSilentError when it hangs."""
        timing = self._shop.timing
        pulse = Pulse(
            self._engine, self.process.cpu_s, timing, clock=time.monotonic, is_loading=lambda: self.shelf.is_loading
        )
        next_probe = time.monotonic() + timing.probe_interval_s
        while True:
            self._raise_if_ended()
            if doubt.is_set() or time.monotonic() >= next_probe:
                doubt.clear()
                await pulse.feel()
                self.queue_wait_ms = pulse.queue_wait_ms
                next_probe = time.monotonic() + timing.probe_interval_s
            await asyncio.sleep(timing.poll_s)

    async def _recover(self, fault: PoolError) -> None:
        if self.is_stopping():
            return
        reason = await self._find_end_reason(fault)
        was_ready_s = (_now_us() - self._since_us) / 1e6 if self.state is ReplicaState.READY else 0.0
        with contextlib.suppress(OSError):  # on a full disk its end is noted when the next controller finds it
            self._shop.memory.mark_ended(self.replica_id, self.process.epoch, _now_us())
        self._set(ReplicaState.FAILED, reason or fault.code)
        _log.warning("replica %s epoch %d: %s (%s)", self.replica_id, self.process.epoch, reason or fault.code, fault)
        await self._await_lead()
        await self.process.kill()
        timing = self._shop.timing
        if was_ready_s > timing.backoff_max_s:
            self._backoff_s = timing.backoff_first_s
        await asyncio.sleep(self._backoff_s)
        self._backoff_s = min(self._backoff_s * 2, timing.backoff_max_s)

    async def _await_lead(self) -> None:
        """Before anything is done to the process: who does not lead only looks on."""
        while not (self._ends_regardless or self._shop.may_act()):
            await asyncio.sleep(self._shop.timing.poll_s)

    async def _find_end_reason(self, fault: PoolError) -> str | None:
        """How the process ended, if it did; a connection closes a moment before its end is written down."""
        if not self.process.is_started():
            return None
        looks = _LOOKS_FOR_END if isinstance(fault, EngineSilentError) else 1
        for _ in range(looks):
            reason = self.process.end_reason()
            if reason is not None:
                return reason
            await asyncio.sleep(0.1)
        return None

    async def _drain(self) -> None:
        # One found running serves though it has not been felt yet.
        was_ready = self.state is ReplicaState.READY or (self.process.is_started() and self._was_ready())
        self._set(ReplicaState.DRAINING)
        if was_ready:
            await asyncio.sleep(self._shop.timing.drain_notice_s)  # gateways hear of it before the engine does
            await self._wait_idle()
            await self._shop.last_reading(self)
        await self._await_lead()
        await _cancel(self._life)
        await self.process.stop()
        self._shop.memory.mark_ended(self.replica_id, self.process.epoch, _now_us())
        self._set(ReplicaState.STOPPED)

    async def _wait_idle(self) -> None:
        deadline = time.monotonic() + self._shop.timing.drain_timeout_s
        while time.monotonic() < deadline:
            try:
                load = await self._engine.read_load()
            except EngineError:
                return
            if load.in_flight == 0:
                return
            await asyncio.sleep(self._shop.timing.poll_s)

    def _raise_if_ended(self) -> None:
        reason = self.process.end_reason()
        if reason is not None:
            raise ReplicaFaultError(reason, f"process of {self.replica_id} ended; its log has the last words")

    def _was_ready(self) -> bool:
        known = self._shop.memory.recall(self.replica_id)
        return known.epoch == self.process.epoch and known.ready_at_us is not None

    def _make_client(self) -> EngineClient:
        return EngineClient(self._shop.http, self.process.url, self.planned.replica_set.task)

    def _empty_shelf(self) -> AdapterShelf:
        return AdapterShelf(
            self._engine,
            clock=time.monotonic,
            notice_s=self._shop.timing.drain_notice_s,
            on_change=self._shop.on_change,
            on_use=self._note_use,
            may_act=self._shop.may_act,
        )

    def _note_use(self, digest: str) -> None:
        self.residency.touch(digest)

    def _set(self, state: ReplicaState, reason: str | None = None) -> None:
        ending = (ReplicaState.DRAINING, ReplicaState.STOPPED)
        if self.is_stopping() and state not in ending:
            return
        self.state, self._reason, self._since_us = state, reason, _now_us()
        self._shop.on_change()


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _now_us() -> int:
    return time.time_ns() // 1000
