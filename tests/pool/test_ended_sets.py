"""Engines of a set whose deployments were all retired: warm for a while, there for calls under way, then gone."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from serving.contract import Demand, DemandRow
from serving.pool.controller import Controller
from tests.pool.test_controller import become_ready
from tests.pool.world import BASE_DIGEST, World, eventually, make_base, make_desired, make_world

IDLE_S = 2


def retire(world: World) -> float:
    """Let all that is deployed end now; returns when (wall clock)."""
    now = time.time()
    one = replace(world.hub.desired.replica_sets[0], idle_s=IDLE_S, keep_until=int(now * 1e6))
    world.hub.want(replace(world.hub.desired, replica_sets=(one,)))
    return now


async def keep_calling(controller: Controller, until: float) -> None:
    while time.time() < until:
        controller.demand.record(Demand("gw", (DemandRow(BASE_DIGEST, 1, 0, 0),)))
        await asyncio.sleep(0.2)
    controller.demand.record(Demand("gw", ()))


def test_the_minimum_runs_until_the_set_was_warm_for_its_idle_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(make_base(tmp_path / "base"))) as world, world.controller():
            await become_ready(world)
            ended_at = retire(world)
            await eventually(lambda: not world.running())
            assert time.time() - ended_at >= IDLE_S

    asyncio.run(scenario())


def test_an_engine_with_calls_under_way_outlives_what_was_deployed(tmp_path: Path) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            await become_ready(world)
            ended_at = retire(world)
            await keep_calling(controller, ended_at + 2 * IDLE_S)
            assert len(world.running()) == 1
            await eventually(lambda: not world.running())
            assert time.time() - ended_at >= 3 * IDLE_S - 0.5

    asyncio.run(scenario())
