"""The controller's HTTP face: routes long poll, demand, status, and bad input."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from serving.contract import Demand, DemandRow, RouteReplica, Routes, decode, encode
from serving.pool.demand import DemandBoard
from serving.pool.placement import SetLoad
from serving.pool.routes import RoutesBoard
from serving.pool.server import create_app
from tests.pool.world import BASE_DIGEST, make_desired

Scenario = Callable[[Any, RoutesBoard, DemandBoard], Awaitable[None]]


def serve(scenario: Scenario, clock: Callable[[], float] = lambda: 0.0) -> None:
    async def run() -> None:
        routes, demand = RoutesBoard(), DemandBoard(clock)
        async with TestClient(TestServer(create_app(routes, demand, lambda: {"hub": "ok"}))) as client:
            await scenario(client, routes, demand)

    asyncio.run(run())


def test_routes_answer_at_once_then_wait_for_the_next() -> None:
    async def scenario(client: Any, board: RoutesBoard, _demand: DemandBoard) -> None:
        first = decode(Routes, await (await client.get("/routes")).json())
        assert (await client.get(f"/routes?after={first.version}&wait_s=0.05")).status == 204
        waiting = asyncio.ensure_future(client.get(f"/routes?after={first.version}&wait_s=5"))
        await asyncio.sleep(0.05)
        shown = (RouteReplica("r", 1, "http://127.0.0.1:1", "b", False),)
        board.publish(Routes(0, shown, {"d": ("r",)}, {"d": ("r",)}))
        second = decode(Routes, await (await waiting).json())
        assert second.version > first.version
        assert second.placement == second.resident == {"d": ("r",)}
        board.publish(replace(second, version=0))
        assert board.routes.version == second.version, "the same routes are no news"

    serve(scenario)


def test_demand_is_kept_until_idle() -> None:
    now = [0.0]

    async def scenario(client: Any, _board: RoutesBoard, demand: DemandBoard) -> None:
        desired = make_desired(Path("/base"))
        message = encode(Demand("gw", (DemandRow(BASE_DIGEST, 1, 2, 700),)))
        assert (await client.post("/demand", json=message)).status == 204
        assert demand.loads(desired) == {"set_a": SetLoad(True, 700)}
        now[0] = 30.0
        assert demand.loads(desired) == {"set_a": SetLoad(True, 0)}, "a wait that is not said again is over"
        now[0] = 601.0
        assert demand.loads(desired) == {"set_a": SetLoad(False, 0)}

    serve(scenario, lambda: now[0])


def test_bad_input_is_named() -> None:
    async def scenario(client: Any, _board: RoutesBoard, _demand: DemandBoard) -> None:
        answer = await client.post("/demand", json={"contract_version": 1, "gateway_id": "gw", "rows": [{}]})
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        problem = await answer.json()
        assert (problem["code"], problem["field"]) == ("missing_field", "rows[0].digest")
        assert (await (await client.get("/routes?after=x")).json())["code"] == "bad_number"
        status = await (await client.get("/status")).json()
        assert status == {"contract_version": 1, "hub": "ok"}
        assert (await client.get("/health")).status == 200

    serve(scenario)
