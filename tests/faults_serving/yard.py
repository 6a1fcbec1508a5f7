"""Two real vLLM engines under a real controller, a gateway of two processes before them, and hubs that keep everything.

Engines are killed and replaced from outside; what clients see of it is `greedy`'s, what must add up `books`'.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from aiohttp import web

from serving.contract import (
    SCOPE_IGNORE_EOS,
    SCOPE_INFERENCE,
    Desired,
    EngineReading,
    ReplicaState,
    UsageRecord,
    Witness,
)
from serving.pool.controller import Controller
from serving.pool.engine_command import VllmCommands
from serving.pool.server import create_app
from serving.pool.settings import Accelerator, Timing
from serving.witness.book import SLOT_BYTES
from tests.gateway.samples import BASE, make_key, make_model, make_snapshot
from tests.gateway.world import Gateway, running_world, wait_for
from tests.gateway.world import World as GatewayWorld
from tests.pool.tiny_models import ENVIRONMENT
from tests.pool.world import World, make_desired, make_world

TIMING = Timing(drain_notice_s=1.0, observed_interval_s=0.5, tick_s=0.2, backoff_first_s=0.2)
START_S = 300.0
PROCESSES = 2
CONTEXT_TOKENS = 1024
SPOKEN = 4
KEY = make_key(1, scopes=(SCOPE_INFERENCE, SCOPE_IGNORE_EOS))
SNAPSHOT = make_snapshot(keys=(KEY,), models=(make_model("org/base", context_tokens=CONTEXT_TOKENS),))
Result = TypeVar("Result")
Engine = tuple[str, int]
"""Replica id and epoch: one started engine."""


class Yard:
    """The engines, the gateway before them, and both hubs' memory."""

    def __init__(self, pool: World, gateway_world: GatewayWorld, gateway: Gateway) -> None:
        self.pool = pool
        self.world = gateway_world
        self.gateway = gateway
        self.gateway_kills = 0

    def ready(self) -> frozenset[Engine]:
        """Return the engines that are ready."""
        observed = self.pool.hub.observed
        replicas = observed.replicas if observed else ()
        return frozenset((one.replica_id, one.replica_epoch) for one in replicas if one.state is ReplicaState.READY)

    def wait_for_two(self, *, but: frozenset[Engine] = frozenset()) -> None:
        """Wait until two engines are ready, none of those in `but`, and the gateway knows them."""
        wait_for(lambda: len(self.ready() - but) == 2, timeout_s=START_S)
        time.sleep(0.5)

    def kill_engine(self, chance: random.Random) -> tuple[Engine, float]:
        """Kill a ready engine in the middle of an answer with everything it started; returns which, and when.

        The time is in monotonic seconds.
        """
        victim = chance.choice(sorted(self.ready()))
        wait_for(lambda: self._speaks(victim), timeout_s=60)
        handle = next(one for one in self.pool.launch.list_mine() if one.name == f"{victim[0]}-{victim[1]}")
        killed_s = time.monotonic()
        os.killpg(handle.pid, signal.SIGKILL)
        return victim, killed_s

    def _speaks(self, engine: Engine) -> bool:
        """Whether its witness notes a running request with so many tokens that its client has surely heard some.

        They are the second number of its place in the file.
        """
        slots = (self.pool.folder / "state" / "witness" / f"{engine[0]}-{engine[1]}.running").read_bytes()
        pieces = (slots[at : at + SLOT_BYTES] for at in range(0, len(slots), SLOT_BYTES))
        return any(piece.strip() and int.from_bytes(piece[8:16], "little") >= SPOKEN for piece in pieces)

    def kill_gateway(self, chance: random.Random) -> tuple[float, float]:
        """Kill one serving process of the gateway; returns when it was told and gone, once another is in its place."""
        killed_s, victim = time.monotonic(), psutil.Process(chance.choice(self.gateway.workers()))
        victim.kill()
        wait_for(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
        gone_s = time.monotonic()
        self.gateway_kills += 1
        wanted = PROCESSES + self.gateway_kills
        wait_for(lambda: self.gateway.log_path.read_text().count("on http://") >= wanted, timeout_s=60)
        return killed_s, gone_s

    def renew_engines(self) -> None:
        """Want other engine options for the whole set, as an operator does, and wait until both engines have them."""
        before = self.ready()
        desired = self.pool.hub.desired
        changed = {"max-num-seqs": int(desired.replica_sets[0].engine_args["max-num-seqs"]) + 1}
        sets = tuple(replace(one, engine_args={**one.engine_args, **changed}) for one in desired.replica_sets)
        self.pool.hub.want(replace(desired, replica_sets=sets))
        self.wait_for_two(but=before)

    def usage(self) -> dict[tuple[str, int], UsageRecord]:
        """Return every record that the gateway handed over, by request and attempt."""
        return self.world.hub.usage

    def rows(self, engine: Engine) -> list[Witness]:
        """Return what one engine's witness wrote."""
        return [row for row in self.pool.hub.witness if (row.replica_id, row.replica_epoch) == engine]

    def reading(self, engine: Engine) -> EngineReading | None:
        """Return the newest counters of an engine that stood still."""
        found = [one for one in self.pool.hub.readings if (one.replica_id, one.replica_epoch) == engine]
        return found[-1] if found else None

    def wait_for_books(self, delivered: set[str]) -> None:
        """Wait until every delivered call has its record, and every engine was read after its last call.

        Files of dead engines are gone once the hub has all their rows.
        """
        witness = self.pool.folder / "state" / "witness"

        def settled() -> bool:
            known = {request_id for request_id, _attempt in self.usage()}
            files = {path.stem for path in witness.glob("*.jsonl")}
            living = {f"{name}-{epoch}" for name, epoch in self.ready()}
            return delivered <= known and files <= living and all(map(self._is_read, self.ready()))

        time.sleep(2.0)
        wait_for(settled, timeout_s=60.0)

    def _is_read(self, engine: Engine) -> bool:
        reading = self.reading(engine)
        last = max((row.seq for row in self.rows(engine) if row.allowance_id is not None), default=0)
        return reading is not None and reading.through_seq >= last


@contextmanager
def running_yard(desired: Desired, folder: Path) -> Iterator[Yard]:
    """Start the engines that `desired` wants at least and a gateway before them; everything is gone afterwards."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with running_world(SNAPSHOT, folder, engines=0) as gateway_world:
        pool = _Pool(desired, folder / "pool")
        try:
            gateway_world.pool_url = _on(loop, pool.start(), START_S + 60)
            gateway = Gateway(gateway_world, hold_s=120.0, processes=PROCESSES)
            gateway.start()
            try:
                yield Yard(pool.world, gateway_world, gateway)
            finally:
                gateway.stop()
        finally:
            _on(loop, pool.stop(), 120.0)
            _on(loop, _end_rest(), 10.0)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class _Pool:
    """A controller and its HTTP server on one loop."""

    world: World

    def __init__(self, desired: Desired, folder: Path) -> None:
        self._desired, self._folder = desired, folder
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        self._folder.mkdir()
        up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(up))
        either: set[asyncio.Future[Any]] = {up, self._task}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            self._task.result()
        return await up

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self, up: "asyncio.Future[str]") -> None:
        commands = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)
        async with (
            make_world(self._folder, self._desired, commands, TIMING) as world,
            world.controller() as controller,
        ):
            self.world = world
            runner = await _listen(controller)
            async with asyncio.timeout(START_S):
                while len(controller.routes.routes.replicas) < self._desired.replica_sets[0].min:
                    await asyncio.sleep(0.2)
            up.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await self._stop.wait()
            await runner.cleanup()


def want_engines(base: Path, *, minimum: int, seats: int, idle_s: int = 600) -> Desired:
    """Return one set on two slots with `minimum` to two engines, each of which runs `seats` requests at once.

    In float32: in bfloat16 an engine that reads a text as a prompt sometimes goes on otherwise than the one that wrote
    it, which is not the gateway's doing.
    """
    desired = make_desired(base, minimum=minimum, slots=2)
    arguments = {"max-model-len": CONTEXT_TOKENS, "max-num-seqs": seats, "dtype": "float32"}
    one = replace(desired.replica_sets[0], base_digest=BASE, engine_args=arguments, max_loras=0, idle_s=idle_s)
    return replace(desired, replica_sets=(one,))


async def _end_rest() -> None:
    """Let long polls that nobody waits for any more end before their loop is closed."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _listen(controller: Controller) -> web.AppRunner:
    app = create_app(controller.routes, controller.demand, controller.read_status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def _on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)
