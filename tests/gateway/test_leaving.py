"""Clients that leave, never read or only wait: the engine stops, what came is billed once, places are free again."""

import asyncio
import http.client
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.contract import EndReason, UsageStatus
from serving.gateway.body_budget import BodyBudget
from serving.gateway.connection import IDLE_TIMEOUT_S, WRITE_TIMEOUT_S, ClientConnection
from serving.gateway.exchange import BODY_AHEAD_BYTES, Exchange, Tape
from serving.gateway.fair_share import MAX_WAITING
from tests.gateway.crowd import call, run_crowd
from tests.gateway.engine import Engine
from tests.gateway.samples import OWNER, make_key, make_model, make_snapshot, secret_of
from tests.gateway.test_failures import spent_by_hub
from tests.gateway.test_recovery import MESSAGES, SNAPSHOT
from tests.gateway.test_refusals import NOTHING, Pipe
from tests.gateway.test_rules import Time
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

FREE, ONE_AT_ONCE, OTHER_FIRM = 1, 2, 3
TOKENS = 8
IDLE = 10_000


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    keys = (make_key(FREE), make_key(ONE_AT_ONCE, concurrency=1), make_key(OTHER_FIRM, organisation_id=OWNER))
    snapshot = make_snapshot(keys=keys, models=(make_model("org/base"),))
    folder = tmp_path_factory.mktemp("leaving")
    with running_world(snapshot, folder) as world, running_gateway(world, hold_s=120.0) as gateway:
        yield world, gateway


def connect(gateway: Gateway) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def begin_stream(gateway: Gateway, key: int, **more: Any) -> socket.socket:
    """Ask for a stream and read nothing of it."""
    body = json.dumps({"model": "org/base", "messages": MESSAGES, "stream": True} | more).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret_of(key)}\r\n"
    connection = connect(gateway)
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


@pytest.mark.parametrize("read", [0, 1, TOKENS // 2, TOKENS])
def test_s5_08_whoever_leaves_at_any_token_pays_once_for_what_was_made(
    stage: tuple[World, Gateway], engine: Engine, read: int
) -> None:
    world, gateway = stage
    engine.delay_s, engine.tokens = 0.15, TOKENS
    before = set(world.hub.usage)
    if read:
        run_crowd(1, lambda _: call(gateway.url, secret_of(ONE_AT_ONCE), leave_after=read))
    else:
        connection = begin_stream(gateway, ONE_AT_ONCE)
        wait_for(lambda: engine.running)
        connection.close()
    left_at_s = time.monotonic()
    wait_for(lambda: not engine.running)
    assert time.monotonic() - left_at_s < 3.0
    (record,) = wait_for(lambda: [world.hub.usage[key] for key in set(world.hub.usage) - before])
    assert read <= record.completion_tokens <= engine.produced <= read + 2
    if read < TOKENS:
        assert (record.end_reason, engine.aborted) == (EndReason.CLIENT_GONE, 1)
        assert record.status is (UsageStatus.PARTIAL if record.completion_tokens else UsageStatus.FAILED)
    time.sleep(0.5)  # whatever would be billed a second time
    assert len(set(world.hub.usage) - before) == 1
    engine.delay_s = 0.0
    again = run_crowd(1, lambda _: call(gateway.url, secret_of(ONE_AT_ONCE)))[0]
    assert (again.status, again.whole) == (200, True), "the only place of the key is free"
    wait_for(lambda: world.hub.usage.get((again.request_id, 1)))


def test_s5_08_money_set_aside_for_clients_that_left_comes_back(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        start_ufen = world.hub.balance_ufen
        world.engines[0].delay_s, world.engines[0].tokens = 0.05, 200
        outcomes = run_crowd(24, lambda number: call(gateway.url, secret_of(1), leave_after=1 + number % 7))
        assert all(one.left for one in outcomes)
        wait_for(lambda: len(world.hub.usage) == 24)
        assert gateway.stop() == 0
        assert sum(record.completion_tokens for record in world.hub.usage.values()) <= world.engines[0].produced
        assert start_ufen - world.hub.balance_ufen == spent_by_hub(world)


@pytest.fixture
def many_files() -> Iterator[int]:
    """Let this process open as many files as it may; returns how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(IDLE, hard - 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_s5_08_ten_thousand_idle_connections_hold_nobody_up(stage: tuple[World, Gateway], many_files: int) -> None:
    world, gateway = stage
    assert many_files >= 1000
    idle = [connect(gateway) for _ in range(many_files)]
    try:
        for connection in idle[::100]:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost:")
        outcome = run_crowd(1, lambda _: call(gateway.url, secret_of(FREE)))[0]
        assert (outcome.status, outcome.whole, outcome.took_s < 5.0) == (200, True, True)
        wait_for(lambda: world.hub.usage.get((outcome.request_id, 1)))
    finally:
        for connection in idle:
            connection.close()


def test_s5_08_idle_streams_of_one_firm_hold_no_other_up_and_free_their_places(
    stage: tuple[World, Gateway], engine: Engine, many_files: int
) -> None:
    """900 streams of one firm before an engine that says nothing: 256 run, 512 wait, the rest is told so."""
    world, gateway = stage
    engine.delay_s = 120.0
    before, produced_before = set(world.hub.usage), engine.produced
    streams = [begin_stream(gateway, FREE) for _ in range(900)]
    try:
        wait_for(lambda: engine.running == 256, timeout_s=30)
        wait_for(lambda: _count_refused(streams) >= 900 - 256 - MAX_WAITING, timeout_s=30)
        assert engine.running == 256
        engine.delay_s = 0.0
        other = run_crowd(1, lambda _: call(gateway.url, secret_of(OTHER_FIRM)))[0]
        assert (other.status, other.whole, other.took_s < 5.0) == (200, True, True)
        engine.delay_s = 120.0
    finally:
        for stream in streams:
            stream.close()
    wait_for(lambda: engine.running == 0, timeout_s=30)
    # Whoever got a place for a moment, while the others left, has a record too; nobody pays for text never made.
    wait_for(lambda: len(set(world.hub.usage) - before) >= 256 + 1, timeout_s=30)
    # A stream that takes the other's place at once, before the engine is silent again, is given text too.
    billed = sum(record.completion_tokens for key, record in world.hub.usage.items() if key not in before)
    assert other.tokens <= billed <= engine.produced - produced_before
    engine.delay_s = 0.0
    assert {one.status for one in run_crowd(64, lambda _: call(gateway.url, secret_of(FREE)))} == {200}


def _count_refused(streams: list[socket.socket]) -> int:
    """Return how many were answered 503, without taking the answer from their sockets."""
    found = 0
    for stream in streams:
        stream.setblocking(False)
        try:
            found += stream.recv(64, socket.MSG_PEEK).startswith(b"HTTP/1.1 503")
        except BlockingIOError:
            continue
    return found


def fill_up(
    gateway: Gateway, engine: Engine, path: str = "/v1/chat/completions", *, tokens: int = 60_000, **headers: str
) -> http.client.HTTPConnection:
    """Ask for `tokens` tokens, read none and return once the engine is held back."""
    engine.tokens = tokens
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    asked: dict[str, Any] = {"model": "org/base", "messages": MESSAGES, "stream": True}
    asked |= {"max_tokens": 9} if path == "/v1/messages" else {}
    headers |= {"authorization": f"Bearer {secret_of(1)}"}
    connection.request("POST", path, json.dumps(asked), headers)
    seen = [-1, -2, -3]
    while len(set(seen)) > 1:
        seen = [*seen[1:], engine.produced]
        time.sleep(0.7)
    assert 0 < engine.produced < tokens
    return connection


def test_s5_08_a_client_that_never_reads_holds_the_engine_back(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        connection = fill_up(gateway, world.engines[0])
        produced = world.engines[0].produced
        connection.close()
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert record.end_reason is EndReason.CLIENT_GONE
        wait_for(lambda: world.engines[0].aborted)
        assert record.completion_tokens <= world.engines[0].produced == produced  # nothing was made for nobody


def test_s5_08_a_slow_client_that_leaves_no_longer_holds_back_what_runs_on_for_its_retry(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        connection = fill_up(gateway, world.engines[0], **{"idempotency-key": "k"})
        assert world.hub.usage == {}
        connection.close()
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None), timeout_s=60)
        assert (record.status, record.completion_tokens) == (UsageStatus.COMPLETE, 60_000)


def test_s5_08_a_slow_client_that_leaves_no_longer_holds_back_tokens_that_come_with_the_last_event(
    tmp_path: Path,
) -> None:
    tokens = 150_000
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        connection = fill_up(gateway, world.engines[0], "/v1/messages", tokens=tokens)
        assert world.hub.usage == {}
        connection.close()
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None), timeout_s=60)
        assert (record.status, record.completion_tokens) == (UsageStatus.COMPLETE, tokens)
        assert world.engines[0].aborted == 0


class Line(Pipe):
    """Shows whether the client is read and whether it was cut off."""

    reading = True
    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Served:
    """Reads each request of a connection whole and answers none by itself."""

    def __init__(self) -> None:
        self.line = Line()
        self.exchanges: list[Exchange] = []
        self.connection = ClientConnection(self._take, set(), asyncio.get_running_loop(), full=False)
        self.connection.connection_made(self.line)

    async def receive(self, data: bytes) -> None:
        self.connection.data_received(data)
        await asyncio.sleep(0)

    async def _take(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        await exchange.read_body(4 * BODY_AHEAD_BYTES, BodyBudget(2**30, Time().clock))
        await asyncio.Event().wait()


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize("kept", [False, True])
def test_s5_08_a_slow_client_that_leaves_holds_back_nothing_that_is_kept_for_its_retry(kept: bool) -> None:
    async def leave() -> None:
        served, told = Served(), list[bool]()
        await served.receive(GET)
        exchange = served.exchanges[0]
        exchange.on_writable = told.append
        exchange.tape = Tape(lambda _: None) if kept else None
        served.connection.pause_writing()
        assert (told, exchange.slow) == ([False], True)
        served.connection.connection_lost(None)
        assert (told, exchange.slow, exchange.gone) == ([False, True][: 1 + kept], False, True)

    asyncio.run(leave())


def test_s5_08_a_connection_is_read_on_after_a_large_body_so_that_leaving_is_seen() -> None:
    async def send_body(after: bytes = b"") -> Served:
        served, size = Served(), 2 * BODY_AHEAD_BYTES
        served.connection.data_received(POST % size + b"x" * (size - 1))
        assert not served.line.reading, "the gateway has to catch up first"
        await served.receive(b"x" + after)
        assert served.exchanges[0].body_complete
        return served

    async def send() -> None:
        assert (await send_body()).line.reading
        served = await send_body(after=GET)
        assert not served.line.reading, "who pipelines waits its turn"
        served.exchanges[0].answer(200, b"{}")
        await asyncio.sleep(0)
        assert (len(served.exchanges), served.line.reading) == (2, True)

    asyncio.run(send())


@pytest.mark.parametrize("sent", [GET[:20], GET, POST % 1 + b"x"], ids=["part of a head", "head", "body"])
def test_s5_08_a_new_request_gives_a_client_that_reads_nothing_no_more_time(sent: bytes) -> None:
    async def read_nothing() -> None:
        served, now_s = Served(), asyncio.get_running_loop().time()
        served.connection.pause_writing()
        await served.receive(sent)
        served.connection.expire(now_s + WRITE_TIMEOUT_S - 1.0)
        assert not served.line.aborted
        served.connection.expire(now_s + WRITE_TIMEOUT_S + 1.0)
        assert served.line.aborted

    asyncio.run(read_nothing())


def test_s5_08_a_client_that_catches_up_after_its_answer_may_be_idle_as_long_as_any_other() -> None:
    async def catch_up() -> None:
        served, loop = Served(), asyncio.get_running_loop()
        await served.receive(GET)
        served.connection.pause_writing()
        served.exchanges[0].answer(200, b"{}")
        served.connection.expire(loop.time() + WRITE_TIMEOUT_S - 1.0)
        served.connection.resume_writing()
        served.connection.expire(loop.time() + IDLE_TIMEOUT_S - 1.0)
        assert not served.line.aborted
        served.connection.expire(loop.time() + IDLE_TIMEOUT_S + 1.0)
        assert served.line.aborted

    asyncio.run(catch_up())


def test_s5_08_a_client_that_reads_nothing_for_a_minute_is_left() -> None:
    async def read_nothing() -> None:
        loop, pipe = asyncio.get_running_loop(), Line()
        connection = ClientConnection(NOTHING, set(), loop, full=False)
        connection.connection_made(pipe)
        connection.pause_writing()
        connection.expire(loop.time() + WRITE_TIMEOUT_S - 1.0)
        assert not pipe.aborted
        connection.resume_writing()
        connection.expire(loop.time() + WRITE_TIMEOUT_S + 1.0)
        assert not pipe.aborted, "a client that caught up stays"
        connection.pause_writing()
        connection.expire(loop.time() + WRITE_TIMEOUT_S + 1.0)
        assert pipe.aborted

    asyncio.run(read_nothing())
