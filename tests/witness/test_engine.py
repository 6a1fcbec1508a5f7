"""The witness in real vLLM: its rows are the engine's own counters to the token, whatever ends a request."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving.contract import EngineReading, ReplicaState, Witness
from serving.pool.engine_command import VllmCommands
from serving.pool.settings import Accelerator, Timing
from tests.pool.tiny_models import ENVIRONMENT, TinyModels
from tests.pool.world import World, eventually, make_desired, make_world

LOG = logging.getLogger(__name__)
TIMING = Timing(probe_interval_s=60.0, drain_notice_s=0.1, observed_interval_s=0.5, tick_s=0.2)
ACCOUNT = "alw_1 key_1 ver_1"
Body = dict[str, Any]


async def ask(http: aiohttp.ClientSession, url: str, number: int, body: Body, *, cut_after: int = 0) -> Body:
    """Send a request as a gateway does; leave after `cut_after` lines of its stream. Returns the last usage seen."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    headers = {"X-Request-Id": f"req_{number:032x}-1", "X-Guanmo-Account": ACCOUNT}
    usage: Body = {}
    async with http.post(url + path, json={"model": "base", "temperature": 0, **body}, headers=headers) as response:
        assert response.status == 200, await response.text()
        if not body.get("stream"):
            usage.update((await response.json())["usage"])
            return usage
        lines = 0
        async for line in response.content:
            if b'"usage":{' in line:
                usage = json_of(line)["usage"]
            lines += 1
            if cut_after and lines >= cut_after:
                break
    return usage


def json_of(line: bytes) -> Body:
    parsed: Body = json.loads(line.removeprefix(b"data: "))
    return parsed


def row_of(world: World, number: int) -> Witness | None:
    return next((row for row in world.hub.witness if row.request_id == f"req_{number:032x}"), None)


async def check_reading(world: World) -> EngineReading:
    """Wait for a reading that covers every row and return it."""

    def covering() -> EngineReading | None:
        last = max((row.seq for row in world.hub.witness), default=0)
        found = [reading for reading in world.hub.readings if reading.through_seq == last]
        return found[-1] if found else None

    reading: EngineReading = await eventually(covering, 20)
    rows = [row for row in world.hub.witness if row.replica_epoch == reading.replica_epoch]
    sums = (sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows))
    assert sums == (reading.prompt_tokens, reading.completion_tokens), "witness and counters differ"
    return reading


@pytest.mark.engine
def test_rows_are_the_engines_counters_to_the_token(tiny_models: TinyModels, tmp_path: Path) -> None:
    commands = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)

    async def scenario() -> None:
        desired = make_desired(tiny_models.base)
        async with (
            make_world(tmp_path, desired, commands, TIMING) as world,
            world.controller(),
            aiohttp.ClientSession() as http,
        ):
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY), 240)
            warmed = await check_reading(world)
            assert warmed.prompt_tokens >= 256
            await ask_in_every_way(http, ready.url, world)
            reading = await check_reading(world)
            LOG.info("counters %s", reading)
            await kill_in_the_middle(http, ready.url, world)

    asyncio.run(scenario())


async def ask_in_every_way(http: aiohttp.ClientSession, url: str, world: World) -> None:
    chat: Body = {"messages": [{"role": "user", "content": "spindle bearing"}], "max_tokens": 24, "ignore_eos": True}
    text: Body = {"prompt": ["spindle", "bearing 主轴"], "max_tokens": 8, "ignore_eos": True}
    ways: list[Callable[[], Awaitable[Body]]] = [
        lambda: ask(http, url, 1, chat),
        lambda: ask(http, url, 2, {**chat, "stream": True}),
        lambda: ask(http, url, 3, {**chat, "n": 3, "temperature": 1.0}),
        lambda: ask(http, url, 4, text),
        lambda: ask(http, url, 5, {**chat, "stream": True, "max_tokens": 400}, cut_after=20),
        lambda: ask(http, url, 6, {**chat, "stream": True, "max_tokens": 400}, cut_after=1),
    ]
    told = await asyncio.gather(*(way() for way in ways))
    rows = [await eventually(lambda number=number: row_of(world, number)) for number in range(1, 7)]
    for number in (0, 1, 2, 3):
        assert rows[number].completion_tokens == told[number]["completion_tokens"], number
        assert rows[number].told_prompt_tokens == told[number]["prompt_tokens"], number
    assert rows[0].prompt_tokens == told[0]["prompt_tokens"]
    assert rows[2].prompt_tokens == 3 * told[2]["prompt_tokens"], "the engine counts the prompt of every choice"
    assert 0 <= rows[4].completion_tokens - told[4]["completion_tokens"] < 380, "more than delivered, less than asked"
    assert (rows[0].allowance_id, rows[0].key_id, rows[0].version_id) == ("alw_1", "key_1", "ver_1")


async def kill_in_the_middle(http: aiohttp.ClientSession, url: str, world: World) -> None:
    usages: list[Body] = []
    with pytest.raises(aiohttp.ClientError):
        await stream_until_killed(http, url, world, usages)
    row = await eventually(lambda: row_of(world, 9), 30)
    LOG.info("killed: delivered %s, witness %s", usages[-1], row)
    assert row.cut
    assert 0 <= row.completion_tokens - usages[-1]["completion_tokens"] <= 64


async def stream_until_killed(http: aiohttp.ClientSession, url: str, world: World, usages: list[Body]) -> None:
    body: Body = {"model": "base", "prompt": "spindle", "max_tokens": 900, "ignore_eos": True, "stream": True}
    headers = {"X-Request-Id": f"req_{9:032x}-1", "X-Guanmo-Account": ACCOUNT}
    async with http.post(f"{url}/v1/completions", json=body, headers=headers) as response:
        async for line in response.content:
            if b'"usage":{' in line:
                usages.append(json_of(line)["usage"])
            if len(usages) == 100:
                os.killpg(world.running()[0], signal.SIGKILL)
