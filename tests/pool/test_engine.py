"""The controller with real vLLM, one engine for everything: start, hot-load, adopt, drain."""

import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from serving.contract import ReplicaState, engine_name
from serving.pool.controller import Controller
from serving.pool.engine_command import VllmCommands
from serving.pool.settings import Accelerator, Timing
from tests.pool.engine_contract import check_engine
from tests.pool.tiny_models import ENVIRONMENT, TinyModels
from tests.pool.world import World, eventually, make_desired, make_world, want_adapter

LOG = logging.getLogger(__name__)
TIMING = Timing(drain_notice_s=0.2, observed_interval_s=0.5)


async def complete(url: str, model: str) -> dict[str, Any]:
    body = {"model": model, "prompt": "spindle bearing", "max_tokens": 12, "temperature": 0}
    async with aiohttp.ClientSession() as http:
        headers = {"X-Request-Id": "req-1"}
        async with http.post(f"{url}/v1/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.headers["X-Request-Id"] == "req-1", "the gateway joins its records on it"
            answer: dict[str, Any] = await response.json()
            return answer


async def check_stream_usage(url: str) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as response:
        lines = [line for line in (await response.text()).splitlines() if line.startswith("data: {")]
    assert len(lines) >= 2
    assert all('"usage":{' in line for line in lines), "running usage on every chunk, without being asked"


@pytest.mark.engine
def test_real_engine_from_start_to_drain(tiny_models: TinyModels, tmp_path: Path) -> None:
    base, ((digest, adapter), *_) = tiny_models.base, tiny_models.adapters.items()
    commands = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)

    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(base), commands, TIMING) as world:
            async with world.controller(keep_replicas=True):
                url, texts = await start_and_load(world)
                await check_engine(url, adapter)
            pids = world.running()
            world.hub.observed = None
            async with world.controller() as controller:
                await eventually(lambda: controller.routes.routes.placement, 60)
                assert world.running() == pids, "adopted, not restarted"
                again = await complete(url, engine_name(digest))
                assert again["choices"][0]["text"] == texts[1]
                await check_ejection(world, controller)
            assert world.launch.list_mine() == []
            assert [pid for pid in psutil.pids() if is_in_group(pid, pids[0])] == []
            stopped = world.hub.replica(ReplicaState.STOPPED)
            assert stopped is not None
            assert stopped.device_ms > 0

    async def start_and_load(world: World) -> tuple[str, tuple[str, str]]:
        began = time.monotonic()
        ready = await eventually(lambda: world.hub.replica(ReplicaState.READY), 240)
        LOG.info("cold start %.1f s", time.monotonic() - began)
        await check_stream_usage(ready.url)
        began = time.monotonic()
        world.hub.want(replace(world.hub.desired, adapters=(want_adapter(digest, adapter),)))
        await eventually(lambda: getattr(world.hub.adapter(digest), "ready_on", ()), 60)
        LOG.info("adapter from desired to ready %.0f ms", (time.monotonic() - began) * 1000)
        assert (tmp_path / "store" / digest / "adapter_model.safetensors").is_file()
        plain, tuned = await complete(ready.url, "base"), await complete(ready.url, engine_name(digest))
        assert tuned["usage"]["completion_tokens"] > 0
        texts = (plain["choices"][0]["text"], tuned["choices"][0]["text"])
        assert texts[0] != texts[1]
        return ready.url, texts

    asyncio.run(scenario())


async def check_ejection(world: World, controller: Controller) -> None:
    """Stop the engine core alone: the API server still says that all is well."""
    (pid,) = world.running()
    cores = psutil.Process(pid).children(recursive=True)
    assert cores, "the engine core is a process of its own"
    for core in cores:
        core.suspend()
    began = time.monotonic()
    await eventually(lambda: not controller.routes.routes.replicas, 30)
    took_s = time.monotonic() - began
    LOG.info("vLLM with a stopped engine core left the routes after %.1f s", took_s)
    assert took_s <= 10
    failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
    assert failed.reason_code == "engine_silent"


def is_in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
