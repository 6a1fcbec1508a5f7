"""Real engines under the real controller, and a real gateway in front; hub messages come from the tests' small hub."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from aiohttp import web

from serving.contract import DesiredAdapter, ReplicaSet, Slot
from serving.pool.controller import Controller
from serving.pool.engine_command import EngineCommand, VllmCommands
from serving.pool.server import create_app
from serving.pool.settings import Accelerator, Timing
from tests.gateway.control import TOKEN, Hub
from tests.gateway.samples import BASE, PEPPER, make_key, make_model, make_snapshot, secret_of
from tests.pool.world import World, eventually, make_desired, make_world, seal_artifact, want_adapter

START_S = 300.0
KEY = secret_of(1)
BASE_NAME = "bench/base"
TIMING = Timing(drain_notice_s=0.2, observed_interval_s=1.0)


@dataclass(frozen=True)
class Models:
    """Folders of the bench: the base, sealed adapters by digest in order, merged weights of the first one."""

    base: Path
    adapters: Sequence[tuple[str, Path]]
    merged: Path

    def want(self, count: int) -> tuple[DesiredAdapter, ...]:
        """The first `count` adapters as the hub would want them."""
        wanted = [want_adapter(digest, folder) for digest, folder in self.adapters[:count]]
        return tuple(replace(item, base_digest=BASE) for item in wanted)


def make_models(folder: Path, count: int) -> Models:
    """Write the models in a process of its own (torch stays out of this one)."""
    argv = [sys.executable, "-m", "benchmarks.pool.make_models", str(folder), str(count)]
    subprocess.run(argv, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    sealed = [seal_artifact(folder / f"adapter_{number}", folder / "store") for number in range(count)]
    return Models(folder / "base", sealed, folder / "merged")


@dataclass(frozen=True)
class Pinned:
    """Stock vLLM with its thread on the core that the slot names, and memory for `kv_blocks` times 128 tokens."""

    kv_blocks: int | None = None

    def __call__(self, replica_set: ReplicaSet, slot: Slot, *, model: Path, port: int) -> EngineCommand:
        """Return the product's command with these two things set."""
        commands = VllmCommands(Accelerator.CPU, 2, {name: os.environ[name] for name in ("PATH", "HOME")})
        command = commands(replica_set, slot, model=model, port=port)
        core = slot.slot_id.rpartition("_")[2]
        memory = ["--block-size", "128", "--num-gpu-blocks-override", str(self.kv_blocks)] if self.kv_blocks else []
        environment = {**command.environment, "VLLM_CPU_OMP_THREADS_BIND": core}
        return replace(command, argv=(*command.argv, *memory), environment=environment)


@contextlib.asynccontextmanager
async def running_pool(
    folder: Path, models: Models, *, replicas: int, slots: int, adapters: int, kv_blocks: int | None = None
) -> AsyncIterator[tuple[World, Controller, str]]:
    """Controller with `replicas` engines of `slots` slots and so many adapters ready; yields the pool's URL too."""
    desired = make_desired(models.base, minimum=replicas, slots=replicas, adapters=models.want(adapters))
    one = replace(desired.replica_sets[0], base_digest=BASE, max_loras=slots, max=max(2, replicas))
    desired = replace(desired, replica_sets=(one,))
    async with make_world(folder, desired, Pinned(kv_blocks), TIMING) as world, world.controller() as controller:
        runner = web.AppRunner(create_app(controller.routes, controller.demand, controller.read_status))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await eventually(lambda: len(controller.routes.routes.replicas) == replicas, START_S)
            await eventually(lambda: len(controller.routes.routes.placement) == adapters, START_S)
            yield world, controller, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def running_gateway(
    folder: Path, models: Models, pool_url: str, *, adapters: int
) -> AsyncIterator[tuple[str, Hub]]:
    """The gateway process as production starts it; yields its URL and its hub, whose snapshot may be exchanged."""
    public = [make_model(BASE_NAME)]
    public += [make_model(f"bench/a{number}", models.adapters[number][0]) for number in range(adapters)]
    key = replace(make_key(1), scopes=("inference", "ignore_eos"))
    hub = Hub(make_snapshot(keys=(key,), models=tuple(public)))
    runner = web.AppRunner(hub.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(TOKEN)
    (folder / "pepper").write_bytes(PEPPER)
    argv = [sys.executable, "-m", "serving.gateway", "--listen", "127.0.0.1:0", "--pool", pool_url, "--hub"]
    argv += [f"http://127.0.0.1:{runner.addresses[0][1]}", "--token-file", f"{folder}/token", "--journal"]
    argv += [f"{folder}/journal", "--pepper-file", f"{folder}/pepper"]
    log = folder / "gateway.log"
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(*argv, stdout=stream, stderr=stream)
    try:
        yield await _wait_healthy(log), hub
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()


async def _wait_healthy(log: Path) -> str:
    """The URL, once the gateway holds a snapshot and routes."""
    found = await eventually(lambda: re.search(r" on (http://[0-9.]+:[0-9]+)", log.read_text()), 60)
    url = str(found[1])
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        while True:
            async with http.get(f"{url}/healthz") as answer:
                if answer.status == 200:
                    return url
            await asyncio.sleep(0.05)
