"""Builds a gateway from its settings, runs it until it is told to stop, and leaves no money behind.

Answering requests is left to `app`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass

import aiohttp

from serving.gateway.admin import Admin
from serving.gateway.app import GatewayApp
from serving.gateway.body_budget import BodyBudget
from serving.gateway.clock import Clock
from serving.gateway.completions import Completions
from serving.gateway.dispatch import Dispatcher
from serving.gateway.engine_client import EngineClient
from serving.gateway.errors import GatewayError
from serving.gateway.fair_share import FairShare
from serving.gateway.gauges import Gauges
from serving.gateway.http_server import HttpServer, ListenError, bind
from serving.gateway.hub_client import Hub, HubClient, HubError
from serving.gateway.hub_proxy import HubProxy
from serving.gateway.identity import Identity, next_identity
from serving.gateway.journal_file import Journal
from serving.gateway.key_file import KeyFile
from serving.gateway.limits import RateLimits
from serving.gateway.local_hub import LocalHub
from serving.gateway.local_pool import find_models
from serving.gateway.metrics import Metrics
from serving.gateway.models import ModelList
from serving.gateway.pool_client import Pool, PoolClient
from serving.gateway.replays import Replays
from serving.gateway.routes_file import RoutesFilePool
from serving.gateway.routing import Router
from serving.gateway.settings import Alone, ControlPlane, Settings
from serving.gateway.settlement import Settlement
from serving.gateway.shared_table import FILE_NAME, SharedTable
from serving.gateway.suspects import Suspects
from serving.gateway.traces import Tracing
from serving.gateway.upkeep import follow_routes, follow_snapshot, repeat, report_demand, settle_accounts
from serving.gateway.view import CurrentView
from serving.gateway.wallet import Wallet
from serving.gateway.watch import Watch

GRACE_S = 30
# Shorter than the keep-alive of the hub's server.
HUB_KEPT_S = 1.0
_SETTLE_PAUSE_S = 0.2
_ORPHAN_LOOK_S = 0.5
_NEWS_WAIT_S = 10.0
_NEWS_LOOK_S = 0.02
_log = logging.getLogger(__name__)


async def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish, settle and give allowances back."""
    for folder in (settings.shared_dir, settings.journal_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(settings.journal_dir / "gateway.journal")
    identity = next_identity(settings.journal_dir)
    source = settings.source
    engines = EngineClient(source.headers if isinstance(source, Alone) else None)
    tracing = None
    if settings.otlp_endpoint is not None:
        tracing = Tracing(settings.otlp_endpoint, gateway_id=identity.gateway_id)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as control,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=HUB_KEPT_S)) as kept,
        ):
            counterparts = await _find_counterparts(settings, control, kept)
            gateway = _Gateway(settings, identity, journal, engines=engines, counterparts=counterparts, tracing=tracing)
            await (gateway.settle() if settings.settle_only else gateway.serve())
    finally:
        if tracing is not None:
            tracing.close()
        engines.close()
        journal.close()


@dataclass(frozen=True)
class _Counterparts:
    """Whom this gateway talks to besides clients and engines."""

    hub: Hub
    pool: Pool
    hub_proxy: HubProxy | None


async def _find_counterparts(
    settings: Settings, control: aiohttp.ClientSession, kept: aiohttp.ClientSession
) -> _Counterparts:
    """Return them; what may be sent twice goes over `kept` connections."""
    source = settings.source
    if isinstance(source, ControlPlane):
        hub, pool = HubClient(kept, source.hub_url, source.token), PoolClient(control, source.pool_url)
        return _Counterparts(hub, pool, HubProxy(control, source.hub_url))
    local = (
        await find_models(source.replicas, source.headers)
        if source.routes is None
        else RoutesFilePool(source.routes, control)
    )
    keys = KeyFile(source.keys, local)
    keys.snapshot(keys.read(), version=1)  # a wrong file is told now, not at the first call
    return _Counterparts(LocalHub(keys, settings.shared_dir), local, None)


class _Gateway:
    """The parts of one running gateway, wired."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        journal: Journal,
        *,
        engines: EngineClient,
        counterparts: _Counterparts,
        tracing: Tracing | None,
    ) -> None:
        clock = Clock()
        table = SharedTable(settings.shared_dir / FILE_NAME, alone=settings.peers == 1)
        self._metrics = Metrics(settings.shared_dir / "metrics", table.seat)
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._current = CurrentView(clock)
        self._router = Router(clock)
        self._fair_share = FairShare(
            self._router.offer,
            table,
            clock=clock,
            hold_s=settings.hold_s,
            per_replica=settings.calls_per_replica,
            peers=settings.peers,
        )
        self._hub, self._pool = counterparts.hub, counterparts.pool
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
        self._watch = Watch(current=self._current, router=self._router, deadlines=settings.deadlines, clock=clock)
        self._engines = engines
        completions = self._build_completions(clock, table, engines, tracing)
        self._app = GatewayApp(
            current=self._current,
            completions=completions,
            models=ModelList(current=self._current, peppers=settings.peppers, clock=clock),
            hub_proxy=counterparts.hub_proxy,
            metrics=self._metrics,
        )
        self._server = HttpServer(self._app)
        self._gauges = Gauges(
            metrics=self._metrics,
            router=self._router,
            fair_share=self._fair_share,
            journal=journal,
            current=self._current,
            seat=table.seat,
            connections=lambda: self._server.connection_count,
        )

    def _build_completions(
        self, clock: Clock, table: SharedTable, engines: EngineClient, tracing: Tracing | None
    ) -> Completions:
        settings = self._settings
        return Completions(
            watch=self._watch,
            plain=isinstance(settings.source, Alone) and settings.source.plain,
            current=self._current,
            metrics=self._metrics,
            tracing=tracing,
            suspects=Suspects(settings.shared_dir / "suspects", clock, alone=settings.peers == 1),
            bodies=BodyBudget(settings.bodies_bytes, clock),
            replays=Replays(settings.shared_dir / "answers"),
            limits=RateLimits(clock, table),
            wallet=self._wallet,
            dispatcher=Dispatcher(
                self._router,
                self._journal,
                engines,
                fair_share=self._fair_share,
                clock=clock,
                hold_s=settings.hold_s,
            ),
            settlement=self._settlement,
            journal=self._journal,
            peppers=settings.peppers,
            clock=clock,
        )

    async def serve(self) -> None:
        """Listen, keep up with hub and pool, and wind down in order."""
        inherited = self._settlement.settle_inherited()
        if inherited:
            _log.warning("%d usage records of a former process are still to be sent", inherited)
        listener = bind(self._settings.host, self._settings.port, shared=self._settings.shared_port)
        host, port = listener.getsockname()[:2]
        server, stop, hurry = self._server, asyncio.Event(), asyncio.Event()
        admin = HttpServer(Admin(self._metrics))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _ask_to_stop, stop, hurry)
        tasks = self._start_upkeep()
        try:
            if self._settings.peers > 1:
                tasks.append(asyncio.create_task(_follow_parent(os.getppid(), stop)))
                await self._await_news()
            await self._open_admin(admin)
            await server.listen(listener)
            _log.warning(
                "gateway %s epoch %d on http://%s:%d", self._identity.gateway_id, self._identity.epoch, host, port
            )
            await stop.wait()
            await server.wind_down(GRACE_S, hurry)
            await admin.wind_down(0.0, hurry)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wind_down()

    async def _open_admin(self, admin: HttpServer) -> None:
        """Open the operator's door; customers are served even where its port is taken."""
        if self._settings.admin is None:
            return
        try:
            await admin.listen(bind(*self._settings.admin, shared=self._settings.shared_port))
        except ListenError as error:
            _log.error("no /metrics and /load: %s", error)

    async def _await_news(self) -> None:
        """Wait for keys and routes, but not for ever: the others on this port can answer meanwhile."""
        give_up_s = asyncio.get_running_loop().time() + _NEWS_WAIT_S
        while asyncio.get_running_loop().time() < give_up_s and not (self._current.version and self._router.version):
            await asyncio.sleep(_NEWS_LOOK_S)

    async def settle(self) -> None:
        """Settle what the journal holds and end once the hub has it all; nothing is served."""
        self._settlement.settle_inherited()
        upkeep = asyncio.create_task(
            repeat("accounts", lambda: settle_accounts(self._settlement, self._wallet), pause_s=_SETTLE_PAUSE_S)
        )
        while self._journal.state.owes_something:
            await asyncio.sleep(_SETTLE_PAUSE_S)
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        _log.warning("the journal in %s is settled; the folder can go", self._settings.journal_dir)

    def _start_upkeep(self) -> list[asyncio.Task[None]]:
        async def watch() -> None:
            self._watch.sweep()

        steps = (
            ("snapshot", lambda: follow_snapshot(self._hub, self._current, self._watch), 0.1),
            ("routes", lambda: follow_routes(self._pool, self._router, self._fair_share, self._engines), 0.1),
            ("demand", lambda: report_demand(self._pool, self._router, gateway_id=self._identity.gateway_id), 0.05),
            ("accounts", self._settle_accounts, 1.0),
            ("gauges", self._gauges.write, 1.0),
            ("watch", watch, 0.2),
            ("journal", self._journal.durable, 1.0),
        )
        return [asyncio.create_task(repeat(name, step, pause_s=pause_s)) for name, step, pause_s in steps]

    async def _settle_accounts(self) -> None:
        await settle_accounts(self._settlement, self._wallet, hub_answers=self._current.hub_answers)

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


async def _follow_parent(parent: int, stop: asyncio.Event) -> None:
    """Stop when the process that started this one is gone: its successor needs the journal."""
    while os.getppid() == parent:
        await asyncio.sleep(_ORPHAN_LOOK_S)
    stop.set()


def _ask_to_stop(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Finish running requests; a second call does not wait for them."""
    if stop.is_set():
        hurry.set()
    stop.set()
