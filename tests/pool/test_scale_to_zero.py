"""Scale to zero and back with the real controller and the real gateway process, on the fake engine."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.pool.scene import BASE_NAME, KEY, Models, running_gateway
from serving.pool.server import create_app
from tests.pool.world import eventually, make_base, make_desired, make_world

CALLS = 8
IDLE_S = 2


async def ask(gateway: str) -> tuple[int, float]:
    body = {"model": BASE_NAME, "prompt": [5, 6, 7], "max_tokens": 1}
    began = time.monotonic()
    async with aiohttp.ClientSession() as http:
        headers = {"authorization": f"Bearer {KEY}"}
        async with http.post(f"{gateway}/v1/completions", json=body, headers=headers) as answer:
            await answer.read()
            return answer.status, time.monotonic() - began


def test_held_calls_wake_an_engine_and_none_is_lost(tmp_path: Path) -> None:
    desired = make_desired(make_base(tmp_path / "base"), minimum=0)
    desired = replace(desired, replica_sets=(replace(desired.replica_sets[0], idle_s=IDLE_S),))

    async def scenario() -> None:
        async with make_world(tmp_path / "pool", desired) as world, world.controller() as controller:
            runner = web.AppRunner(create_app(controller.routes, controller.demand, controller.read_status))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            pool_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            models = Models(tmp_path / "base", (), tmp_path)
            async with running_gateway(tmp_path / "gateway", models, pool_url, adapters=0) as (gateway, _hub):
                for epoch in (1, 2):
                    assert world.running() == []
                    answers = await asyncio.gather(*[ask(gateway) for _ in range(CALLS)])
                    assert [status for status, _ in answers] == [200] * CALLS
                    assert [item.epoch for item in controller.routes.routes.replicas] == [epoch]
                    await eventually(lambda: not world.running(), IDLE_S + 15)
            await runner.cleanup()

    asyncio.run(scenario())
