"""Runs engines, hub and pool in a thread and the gateway as the process that production starts."""

import asyncio
import contextlib
import dataclasses
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import openai
import psutil
from aiohttp import web

from serving.contract import RouteReplica, Routes, Snapshot
from tests.gateway.control import TOKEN, Hub, Pool
from tests.gateway.engine import Engine
from tests.gateway.process import GatewayProcess
from tests.gateway.samples import ADAPTER, BASE, PEPPER, secret_of

Result = TypeVar("Result")
Found = TypeVar("Found")


class World:
    """Everything around one gateway. `replica_urls` are the addresses of the engines."""

    def __init__(self, snapshot: Snapshot, folder: Path, *, engines: int = 1) -> None:
        self.engines = [Engine() for _ in range(engines)]
        self.hub = Hub(snapshot)
        self.pool = Pool(Routes(1, (), {}, {}))
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runners: dict[str, web.AppRunner] = {}
        self._epochs = [1] * engines
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "pepper").write_bytes(PEPPER + b"\n")

    def start(self) -> None:
        """Listen with every part and route all models to all engines."""
        self._thread.start()
        self.replica_urls = [self._listen(engine.app()) for engine in self.engines]
        self.hub_url, self.pool_url = self._listen(self.hub.app()), self._listen(self.pool.app())
        self.route(range(len(self.engines)))

    def stop(self) -> None:
        """Close every listener and the loop."""
        for runner in self._runners.values():
            self._await(runner.cleanup())
        self._await(asyncio.sleep(0.05))  # for connections that are just being closed
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def route(self, numbers: "range | tuple[int, ...]") -> None:
        """Offer these engines for the base and the adapter."""
        ids = tuple(f"rep_{number}" for number in numbers)
        replicas = tuple(
            RouteReplica(f"rep_{number}", self._epochs[number], self.replica_urls[number], BASE, draining=False)
            for number in numbers
        )
        self.pool.routes = Routes(self.pool.routes.version + 1, replicas, {ADAPTER: ids}, {ADAPTER: ids})

    def kill_engine(self, number: int) -> Engine:
        """End an engine as kill -9 does: its listener and every connection are gone; returns the dead one."""

        async def kill() -> None:
            runner = self._runners.pop(self.replica_urls[number])
            for site in tuple(runner.sites):
                await site.stop()
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

        self._await(kill())
        return self.engines[number]

    def start_engine(self, number: int, engine: Engine) -> None:
        """Put a new engine in the place of a dead one, as the next epoch at another address."""
        self.engines[number] = engine
        self._epochs[number] += 1
        self.replica_urls[number] = self._listen(engine.app())

    def publish(self, **changes: object) -> None:
        """Change the snapshot and wait until a gateway has it: it then asks for what comes after."""
        version = self.hub.snapshot.version + 1
        self.hub.snapshot = dataclasses.replace(self.hub.snapshot, version=version, **changes)  # type: ignore[arg-type]
        wait_for(lambda: self.hub.told >= version)

    def _listen(self, app: web.Application) -> str:
        async def listen() -> str:
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._runners[url] = runner
            return url

        return self._await(listen())

    def _await(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


class Gateway:
    """One gateway process on the world's journal folder."""

    def __init__(self, world: World, *, hold_s: float = 2.0, more: tuple[str, ...] = (), processes: int = 1) -> None:
        self._world = world
        self._processes = processes
        self._port = free_port() if processes > 1 else 0
        self._more = more
        self._hold_s = hold_s
        self.log_path = world.folder / "gateway.log"

    def start(self) -> None:
        """Start and wait until the first snapshot and routes are there."""
        more = ("--hold-s", str(self._hold_s), *self._more, "--processes", str(self._processes))
        options = gateway_options(self._world, *more, port=self._port)
        self.process = GatewayProcess(options, self._world.folder / "processes", self.log_path)
        wait_for(lambda: self.log_path.read_text().count("on http://") >= self._processes, timeout_s=60)
        match = wait_for(lambda: re.search(r"on (http://127\.0\.0\.1:\d+)", self.log_path.read_text()))
        self.url = match.group(1)
        wait_for(self._healthy)

    def stop(self) -> int:
        """Ask the process to stop and return its exit status."""
        self.process.tell_to_stop()
        return self.process.wait(20)

    def workers(self) -> list[int]:
        """Return the ids of the processes that serve, when there are several."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def kill(self) -> None:
        """Kill the process, and those it started, as kill -9 does."""
        with contextlib.suppress(psutil.NoSuchProcess):  # each of them may just have ended
            first = psutil.Process(self.process.pid)
            children = first.children()
            first.kill()  # before it starts children again
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait(20)

    def client(self, number: int = 1) -> openai.OpenAI:
        """Return the stock SDK with key `number`."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=secret_of(number), max_retries=0, timeout=30)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gateway_argv(world: World, *more: str) -> list[str]:
    """Return the command line of a gateway of `world` on a free port."""
    return [sys.executable, "-m", "serving.gateway", *gateway_options(world, *more)]


def gateway_options(world: World, *more: str, port: int = 0) -> list[str]:
    """Return the options of a gateway of `world`, on a free port unless one is given."""
    folder = world.folder
    options = ["--listen", f"127.0.0.1:{port}", "--hub", world.hub_url, "--token-file", f"{folder}/token"]
    options += ["--pool", world.pool_url, "--journal", f"{folder}/journal", "--pepper-file", f"{folder}/pepper"]
    return [*options, *more]


def wait_for(look: Callable[[], Found | None], *, timeout_s: float = 60.0) -> Found:
    """Return what `look` returns once it is true. Raises: TimeoutError."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"nothing after {timeout_s} s")


@contextlib.contextmanager
def running_world(snapshot: Snapshot, folder: Path, *, engines: int = 1) -> Iterator[World]:
    """Run engines, hub and pool for a test."""
    world = World(snapshot, folder, engines=engines)
    world.start()
    try:
        yield world
    finally:
        world.stop()


@contextlib.contextmanager
def running_gateway(
    world: World, *, hold_s: float = 2.0, more: tuple[str, ...] = (), processes: int = 1
) -> Iterator[Gateway]:
    """Run a gateway for a test; it is killed if the test did not stop it."""
    gateway = Gateway(world, hold_s=hold_s, more=more, processes=processes)
    gateway.start()
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.kill()
