"""Adapters that move between engines under a steady stream of calls: the real controller and gateway, fake engines."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.pool.scene import KEY, Models, running_gateway
from serving.contract import Desired
from serving.pool.controller import Controller
from serving.pool.server import create_app
from tests.pool.test_supervision import with_option
from tests.pool.world import World, eventually, make_adapter, make_base, make_desired, make_world, want_adapter

MOVES = 6
CALLERS = 6


def make_turns(folder: Path) -> tuple[Models, list[Desired]]:
    """Two adapters and two desired states: whose rank is larger goes onto the second of two engines of one slot."""
    sealed = [make_adapter(folder / "new" / text, folder / "pool" / "store", text=text) for text in "ab"]
    plain = make_desired(make_base(folder / "base"), minimum=2, slots=2)
    one = replace(plain.replica_sets[0], max_loras=1, max_lora_rank=16)
    small, large = (8, 16), (16, 8)
    turns = [
        replace(
            plain,
            replica_sets=(one,),
            adapters=tuple(replace(want_adapter(*item), rank=rank) for item, rank in zip(sealed, ranks, strict=True)),
        )
        for ranks in (small, large)
    ]
    return Models(folder / "base", sealed, folder), turns


async def call_for_ever(gateway: str, name: str, answers: Counter[int], over: asyncio.Event) -> None:
    body = {"model": name, "prompt": [5, 6, 7], "max_tokens": 1}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http:
        while not over.is_set():
            async with http.post(f"{gateway}/v1/completions", json=body) as answer:
                await answer.read()
                answers[answer.status] += 1


@asynccontextmanager
async def serving(controller: Controller) -> AsyncIterator[str]:
    runner = web.AppRunner(create_app(controller.routes, controller.demand, controller.read_status))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def where(controller: Controller, digests: list[str]) -> list[tuple[str, ...]]:
    return [controller.routes.routes.placement.get(digest, ()) for digest in digests]


def is_split(controller: Controller, digests: list[str]) -> bool:
    return sorted(map(len, where(controller, digests))) == [1, 1] and len(set(where(controller, digests))) == 2


async def move_all(world: World, controller: Controller, turns: list[Desired], digests: list[str]) -> set[int]:
    """Let both adapters change places again and again; returns on how many engines the first one was seen."""
    seen: set[int] = set()
    for turn in range(MOVES):
        before = where(controller, digests)
        world.hub.want(turns[(turn + 1) % 2])

        def is_swapped(before: list[tuple[str, ...]] = before) -> bool:
            now = where(controller, digests)
            seen.add(len(now[0]))
            return now == before[::-1]

        await eventually(is_swapped)
    return seen


def test_no_call_fails_while_adapters_move_between_engines(tmp_path: Path) -> None:
    models, turns = make_turns(tmp_path)
    digests = [digest for digest, _folder in models.adapters]
    answers: Counter[int] = Counter()

    async def scenario() -> None:
        slow = with_option("--load-s", "0.3")
        async with make_world(tmp_path / "pool", turns[0], slow) as world, world.controller() as controller:
            await eventually(lambda: is_split(controller, digests))
            async with (
                serving(controller) as pool_url,
                running_gateway(tmp_path / "gateway", models, pool_url, adapters=2) as (gateway, _hub),
            ):
                over = asyncio.Event()
                names = [f"bench/a{number % 2}" for number in range(CALLERS)]
                calls = [asyncio.create_task(call_for_ever(gateway, name, answers, over)) for name in names]
                seen = await move_all(world, controller, turns, digests)
                over.set()
                await asyncio.gather(*calls)
        assert 0 not in seen, "the old engine answers until the new one does"

    asyncio.run(scenario())
    assert answers.keys() == {200}
    assert answers[200] > 10 * MOVES
