"""Builds a gateway from its settings, runs it until it is told to stop, and leaves no money behind.

Answering requests is left to `app`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import uvicorn

from serving.gateway.app import GatewayApp
from serving.gateway.clock import Clock
from serving.gateway.completions import Completions
from serving.gateway.dispatch import Dispatcher
from serving.gateway.errors import GatewayError
from serving.gateway.hub_client import HubClient, HubError
from serving.gateway.hub_proxy import HubProxy
from serving.gateway.identity import Identity, next_identity
from serving.gateway.journal_file import Journal
from serving.gateway.limits import RateLimits
from serving.gateway.models import ModelList
from serving.gateway.pool_client import PoolClient
from serving.gateway.routing import Router
from serving.gateway.settings import Settings
from serving.gateway.settlement import Settlement
from serving.gateway.upkeep import (
    follow_routes,
    follow_snapshot,
    repeat,
    report_demand,
    settle_accounts,
)
from serving.gateway.view import CurrentView
from serving.gateway.wallet import Wallet

GRACE_S = 30
MAX_ENGINE_CONNECTIONS = 2048
# Shorter than the keep-alive of the engines, so that no request meets a connection just being closed.
_ENGINE_KEEPALIVE_S = 3.0
_log = logging.getLogger(__name__)


async def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish, settle and give allowances back."""
    settings.journal_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(settings.journal_dir / "gateway.journal")
    identity = next_identity(settings.journal_dir)
    engines = aiohttp.TCPConnector(limit=MAX_ENGINE_CONNECTIONS, keepalive_timeout=_ENGINE_KEEPALIVE_S)
    try:
        async with (
            aiohttp.ClientSession(connector=engines, auto_decompress=False) as engine_session,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as control_session,
        ):
            gateway = _Gateway(settings, identity, journal, engines=engine_session, control=control_session)
            await gateway.serve()
    finally:
        journal.close()


class _Gateway:
    """The parts of one running gateway, wired."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        journal: Journal,
        *,
        engines: aiohttp.ClientSession,
        control: aiohttp.ClientSession,
    ) -> None:
        clock = Clock()
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._current = CurrentView(clock)
        self._router = Router(clock)
        self._hub = HubClient(control, settings.hub_url, settings.token)
        self._pool = PoolClient(control, settings.pool_url)
        self._settlement = Settlement(
            journal, self._hub, gateway_id=identity.gateway_id, gateway_epoch=identity.epoch, clock=clock
        )
        self._wallet = Wallet(
            journal,
            gateway_id=identity.gateway_id,
            gateway_epoch=identity.epoch,
            draw=self._settlement.draw,
            reclaim=self._reclaim,
            clock=clock,
        )
        self._completions = Completions(
            current=self._current,
            limits=RateLimits(clock),
            wallet=self._wallet,
            dispatcher=Dispatcher(self._router, journal, engines, clock=clock, hold_s=settings.hold_s),
            settlement=self._settlement,
            journal=journal,
            pepper=settings.pepper,
            clock=clock,
        )
        self._app = GatewayApp(
            current=self._current,
            completions=self._completions,
            models=ModelList(current=self._current, pepper=settings.pepper, clock=clock),
            hub_proxy=HubProxy(control, settings.hub_url),
        )

    async def serve(self) -> None:
        """Listen, keep up with hub and pool, and wind down in order."""
        inherited = self._settlement.settle_inherited()
        if inherited:
            _log.warning("%d usage records of a former process are still to be sent", inherited)
        listener = _listen(self._settings.host, self._settings.port)
        host, port = listener.getsockname()[:2]
        _log.warning("gateway %s epoch %d on http://%s:%d", self._identity.gateway_id, self._identity.epoch, host, port)
        server = _Server(_uvicorn_config(self._app))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        tasks = self._start_upkeep()
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wind_down()

    def _start_upkeep(self) -> list[asyncio.Task[None]]:
        async def cut() -> None:
            self._completions.cut_blocked()

        steps = (
            ("snapshot", lambda: follow_snapshot(self._hub, self._current), 0.1),
            ("routes", lambda: follow_routes(self._pool, self._router), 0.1),
            ("demand", lambda: report_demand(self._pool, self._router, gateway_id=self._identity.gateway_id), 1.0),
            ("accounts", lambda: settle_accounts(self._settlement, self._wallet), 1.0),
            ("blocks", cut, 0.2),
            ("journal", self._journal.durable, 1.0),
        )
        return [asyncio.create_task(repeat(name, step, pause_s=pause_s)) for name, step, pause_s in steps]

    async def _reclaim(self) -> None:
        """Send usage and close slices now; raises a 503 when the hub does not take them."""
        try:
            await settle_accounts(self._settlement, self._wallet)
        except HubError as error:
            _log.warning("slices could not be given back: %s", error)

    async def _wind_down(self) -> None:
        try:
            await self._wallet.stop_refills()
            await settle_accounts(self._settlement, self._wallet, closing=True)
        except (HubError, GatewayError) as error:
            _log.warning("left for the next start, the journal has it all: %s", error)


class _Server(uvicorn.Server):
    """A server whose end leaves the process alive to settle; stock uvicorn raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the loop."""
        yield

    def stop(self) -> None:
        """Finish running requests; a second call does not wait for them."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --listen") from error
    return listener


class ListenError(Exception):
    """The address cannot be listened on; the message says which and why."""


def _uvicorn_config(app: GatewayApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
    )
