"""A pool controller in this process, with a hub that records what it is told, for the tests of this folder."""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from serving.contract import (
    Desired,
    DesiredAdapter,
    EngineReading,
    Lead,
    LeadGrant,
    Observed,
    ObservedAdapter,
    ObservedReplica,
    Purpose,
    ReplicaSet,
    ReplicaState,
    Slot,
    Witness,
    WitnessBatch,
    decode,
    encode,
)
from serving.launch import LocalLaunch, ProcessState, WarmProgram
from serving.pool.controller import Controller
from serving.pool.engine_command import CommandBuilder, EngineCommand, VllmCommands
from serving.pool.settings import Accelerator, Settings, Timing

BASE_DIGEST = "b" * 64
LEAD_S = 20.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAST = Timing(
    start_timeout_s=20.0,
    probe_interval_s=0.3,
    probe_timeout_s=0.7,
    stuck_timeout_s=6.0,
    drain_notice_s=0.2,
    drain_timeout_s=5.0,
    stop_timeout_s=5.0,
    backoff_first_s=0.1,
    backoff_max_s=0.4,
    poll_s=0.05,
    tick_s=0.1,
    observed_interval_s=0.3,
    sweep_interval_s=0.3,
)


class FakeHub:
    """Answers the pool routes; `desired` may be exchanged at any time, `observed` is the last report.

    Each controller calls it below a path of its own, `state` for the usual one; it answers those in `silent_to` with
    the status `silence`.
    """

    def __init__(self, desired: Desired) -> None:
        self.desired = desired
        self.epoch = 0
        self.leader: str | None = None
        self.lead_until = 0.0
        self.silent_to: set[str] = set()
        self.silence = 503
        self.leads = 0
        self.observed: Observed | None = None
        self.witness: list[Witness] = []
        self.readings: list[EngineReading] = []
        self.url = ""

    async def start(self) -> web.AppRunner:
        app = web.Application(middlewares=[self._silence])
        app.router.add_post("/{who}/internal/v1/pool/lead", self._lead)
        app.router.add_get("/{who}/internal/v1/pool/desired", self._desired)
        app.router.add_put("/{who}/internal/v1/pool/observed", self._observed)
        app.router.add_post("/{who}/internal/v1/witness", self._witness)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def want(self, desired: Desired) -> None:
        self.desired = replace(desired, generation=self.desired.generation + 1)

    def depose(self, leader: str = "another") -> None:
        """Give the lead to another controller, for ever."""
        self.leader, self.epoch, self.lead_until = leader, self.epoch + 1, float("inf")

    def end_lead(self) -> None:
        """Whoever leads was silent for too long."""
        self.lead_until = 0.0

    async def _lead(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        controller_id = decode(Lead, await request.json()).controller_id
        if self.leader not in (None, controller_id) and time.monotonic() < self.lead_until:
            return web.json_response({"code": "wrong_epoch"}, status=409)
        self.leads += 1
        self.epoch += 1
        self.leader = controller_id
        return self._grant()

    def _grant(self) -> web.Response:
        self.lead_until = time.monotonic() + LEAD_S
        return web.json_response(encode(LeadGrant(self.epoch, int((time.time() + LEAD_S) * 1e6))))

    @web.middleware
    async def _silence(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info["who"] in self.silent_to:
            return web.Response(status=self.silence)
        return await handler(request)

    async def _desired(self, request: web.Request) -> web.Response:
        assert set(request.query) == {"after", "wait_s"}, "the hub refuses unknown names"
        for _ in range(40):
            if int(request.query["after"]) < self.desired.generation:
                return web.json_response(encode(replace(self.desired, epoch=self.epoch)))
            await asyncio.sleep(0.05)
        return web.Response(status=204)

    async def _observed(self, request: web.Request) -> web.Response:
        observed = decode(Observed, await request.json())
        if observed.epoch != self.epoch:
            return web.json_response({"code": "wrong_epoch"}, status=409)
        self.observed = observed
        return self._grant()

    async def _witness(self, request: web.Request) -> web.Response:
        batch = decode(WitnessBatch, await request.json())
        known = {(row.replica_id, row.replica_epoch, row.seq) for row in self.witness}
        self.witness += [row for row in batch.rows if (row.replica_id, row.replica_epoch, row.seq) not in known]
        self.readings += batch.readings
        return web.json_response({"contract_version": 1})

    def replica(self, state: ReplicaState | None = None) -> ObservedReplica | None:
        """The newest reported replica, in `state` when given."""
        replicas = self.observed.replicas if self.observed else ()
        return next((item for item in replicas if state in (None, item.state)), None)

    def adapter(self, digest: str) -> ObservedAdapter | None:
        """The reported adapter."""
        adapters = self.observed.adapters if self.observed else ()
        return next((item for item in adapters if item.digest == digest), None)


def fake_commands(_replica_set: ReplicaSet, _slot: Slot, *, model: Path, port: int) -> EngineCommand:
    """`CommandBuilder` of the fake engine."""
    program = Path(__file__).with_name("fake_engine.py")
    return EngineCommand((sys.executable, str(program), "--port", str(port)), {"PATH": os.environ["PATH"]})


_LOADED: list[tuple[VllmCommands, WarmProgram | None]] = []


def share_loaded(build_command: CommandBuilder) -> WarmProgram | None:
    """One loaded vLLM for all worlds of this process, with which it ends; none for fake engines."""
    if not isinstance(build_command, VllmCommands):
        return None
    for commands, loaded in _LOADED:
        if commands == build_command:
            return loaded
    loaded = build_command.keep_loaded(Path(os.devnull))
    _LOADED.append((build_command, loaded))
    return loaded


class World:
    """One state folder, its hub and the controllers that come and go."""

    def __init__(self, folder: Path, desired: Desired, build_command: CommandBuilder, timing: Timing) -> None:
        self.folder = folder
        self.hub = FakeHub(desired)
        self._build_command = build_command
        self._timing = timing
        self.launch = self.launch_of("state")

    @asynccontextmanager
    async def controller(self, *, keep_replicas: bool = False, state: str = "state") -> AsyncIterator[Controller]:
        """Run a controller on a folder of its own state; leaving stops it as SIGTERM would."""
        settings = Settings(
            hub_url=f"{self.hub.url}/{state}",
            token="secret",
            host="127.0.0.1",
            port=0,
            store=self.folder / "store",
            state=self.folder / state,
            accelerator=Accelerator.CPU,
            cpu_count=2,
            keep_replicas=keep_replicas,
            timing=self._timing,
        )
        async with aiohttp.ClientSession() as http:
            launch = self.launch_of(state)
            controller = Controller(settings, http=http, launch=launch, build_command=self._build_command)
            stop = asyncio.Event()
            task = asyncio.create_task(controller.run(stop))
            try:
                yield controller
            finally:
                stop.set()
                await task

    def launch_of(self, state: str) -> LocalLaunch:
        """What starts the engines of a controller."""
        return LocalLaunch(self.folder / state / "processes", share_loaded(self._build_command))

    def running(self, state: str = "state") -> list[int]:
        """Process ids of engines of a controller that run."""
        launch = self.launch_of(state)
        return [item.pid for item in launch.list_mine() if launch.poll(item).state is ProcessState.RUNNING]


@asynccontextmanager
async def make_world(
    folder: Path, desired: Desired, build_command: CommandBuilder = fake_commands, timing: Timing = FAST
) -> AsyncIterator[World]:
    """A world whose engines are all gone afterwards, even when the test fails."""
    world = World(folder, desired, build_command, timing)
    runner = await world.hub.start()
    try:
        yield world
    finally:
        await runner.cleanup()
        for processes in folder.glob("*/processes"):
            launch = world.launch_of(processes.parent.name)
            for handle in launch.list_mine():
                launch.fence(handle)


async def eventually(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "condition never came true"
        await asyncio.sleep(0.02)
    return value


def make_base(folder: Path) -> Path:
    """A base folder as far as the controller looks at it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def seal_artifact(folder: Path, store: Path) -> tuple[str, Path]:
    """Write SHA256SUMS and move the folder to `<store>/<digest>`."""
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    digest = hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    store.mkdir(parents=True, exist_ok=True)
    return digest, folder.rename(store / digest)


def make_adapter(folder: Path, store: Path, *, text: str = "a") -> tuple[str, Path]:
    """An adapter folder that the fake engine accepts."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"text": text}))
    return seal_artifact(folder, store)


def make_desired(base: Path, *, minimum: int = 1, slots: int = 1, adapters: tuple[DesiredAdapter, ...] = ()) -> Desired:
    """One serve set on `base` with `slots` granted slots."""
    replica_set = ReplicaSet("set_a", BASE_DIGEST, base.as_uri(), "vllm", Purpose.SERVE, minimum, 2, 4, 8, {})
    granted = tuple(Slot(f"slot_{number}", "set_a", "node", ("cpu",), 1) for number in range(slots))
    return Desired(1, 1, (replica_set,), granted, adapters)


def want_adapter(digest: str, folder: Path, *, keep_until: int | None = None, min_replicas: int = 1) -> DesiredAdapter:
    """The desired adapter of `make_adapter`."""
    return DesiredAdapter(digest, BASE_DIGEST, folder.as_uri(), 8, min_replicas, keep_until)
