"""The controller: follows the hub's desired state, reports what it sees, keeps routes; each part works in its module.

Who does not lead for sure leaves engines alone: they run on and are routed, but none is started, stopped or filled. A
defect in any task ends the controller with the engines left running; the next controller adopts them.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from serving.contract import Desired, Observed, encode
from serving.launch import Launch
from serving.pool.adapter_folders import AdapterFolders
from serving.pool.demand import DemandBoard
from serving.pool.drafts import sweep_drafts
from serving.pool.engine_command import CommandBuilder
from serving.pool.errors import EngineError, PoolError
from serving.pool.file_hub import DesiredFileError, FileHub
from serving.pool.fleet import Fleet
from serving.pool.gain import GainMeter
from serving.pool.hub_link import Hub, HubLink, HubSilentError, WrongEpochError
from serving.pool.memory import Memory
from serving.pool.remote_artifacts import ADAPTER_BYTES, FetchLimits, RemoteArtifacts
from serving.pool.replica import Replica, Workshop
from serving.pool.routes import RoutesBoard, describe_routes
from serving.pool.routes_file import RoutesWriter, name_models
from serving.pool.settings import Settings
from serving.pool.witness_desk import WitnessDesk

_POLL_WAIT_S = 20.0
_HUB_RETRY_S = 2.0
_GAINS_SAVED_EVERY_S = 60.0
_IN_FORCE = "the last desired state stays in force"
_NOT_LEADING = "engines run on, without the lead none is started, stopped or filled"
_log = logging.getLogger(__name__)


class Controller:
    """One pool controller on one event loop."""

    def __init__(
        self, settings: Settings, *, http: aiohttp.ClientSession, launch: Launch, build_command: CommandBuilder
    ) -> None:
        self._settings = settings
        self._memory = Memory(settings.state)
        self._work_due, self._report_due = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._desired: Desired | None = self._memory.load_desired()
        self._fetched_epoch: int | None = None
        self._applied_epoch: int | None = None
        self._lead_lock = asyncio.Lock()
        self._is_ending = False
        self._shown: tuple[Any, ...] = ()
        self._hub_problem: PoolError | None = PoolError("hub_not_asked", "the hub was not asked yet")
        self.routes = RoutesBoard()
        self.demand = DemandBoard(time.monotonic, self._work_due.set)
        shop = Workshop(
            launch=launch,
            http=http,
            build_command=build_command,
            memory=self._memory,
            bases=RemoteArtifacts(http, settings.store, FetchLimits()),
            timing=settings.timing,
            state=settings.state,
            on_change=self._note_change,
            watch=self._watch,
            last_reading=self._take_last_reading,
            may_act=self._may_act,
        )
        adapters = RemoteArtifacts(http, settings.store, FetchLimits(folder_bytes=ADAPTER_BYTES))
        self._folders = AdapterFolders(settings.store, self._note_change, adapters)
        self._gains = GainMeter(settings.timing.gain_window_s, self._memory.load_gains())
        self._gains_saved_at = time.monotonic()
        self._fleet = Fleet(shop, self._folders, self._gains)
        self._files = FileHub(settings.files.desired, settings.state) if settings.files else None
        self._hub: Hub = self._files or HubLink(
            http,
            hub_url=settings.hub_url,
            token=settings.token,
            controller_id=self._memory.controller_id(),
            lead_s=settings.timing.lead_s,
        )
        self._routes_file = RoutesWriter(settings.files.routes, pool_url=settings.url) if settings.files else None
        self._witness = WitnessDesk(settings.state, self._hub)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then drain and end the replicas, or leave them when so set or not leading.

        Raises: any defect.
        """
        self._fleet.adopt_found()
        loops = (self._keep_fleet, self._follow_hub, self._keep_reporting, self._keep_witness, self._keep_reading)
        for loop in (*loops, self._keep_gains, self._keep_store):
            self._watch(asyncio.ensure_future(_forever(loop)))
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        ends: list[asyncio.Future[Any]] = [stopping, self._broken]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._broken.done() or self._settings.keep_replicas or not self._may_act():
            await self._fleet.leave_all()
        else:
            await self._end_replicas()
        await self._close()
        if self._broken.done():
            self._broken.result()

    def read_status(self) -> dict[str, Any]:
        """What `guanmo status` shows: lead, replicas with their pids, adapters, wants."""
        pids = {replica.replica_id: replica.process.pid() for replica in self._fleet.replicas()}
        replicas = [encode(item) | {"pid": pids.get(item.replica_id)} for item in self._fleet.observe_replicas()]
        return {
            "epoch": self._hub.epoch,
            "generation": self._desired.generation if self._desired else None,
            "hub": self._hub_problem.code if self._hub_problem else "ok",
            "hub_problem": str(self._hub_problem) if self._hub_problem else None,
            "routes_version": self.routes.routes.version,
            "replicas": replicas,
            "adapters": [encode(item) for item in self._fleet.observe_adapters()],
            "wants": [encode(item) for item in self._fleet.wants],
        }

    async def _keep_fleet(self) -> None:
        await _wait(self._work_due, self._settings.timing.tick_s)
        if self._desired is not None and not self._is_ending:
            if self._hub.leads() and self._fetched_epoch == self._hub.epoch:
                self._fleet.apply(self._desired, self.demand)
                self._applied_epoch = self._fetched_epoch
            else:
                self._fleet.stand_by(self._desired, self.demand)
            shown = (self._desired.generation, self._fleet.wants, self._fleet.observe_adapters())
            if shown != self._shown:
                self._shown = shown
                self._report_due.set()
        self._show_routes()

    async def _follow_hub(self) -> None:
        async with self._hub_answer():
            epoch = await self._lead()
            is_known = self._desired is not None and epoch == self._fetched_epoch
            after = self._desired.generation if self._desired and is_known else 0
            asked_at = time.monotonic()
            desired = await self._hub.fetch_desired(after=after, wait_s=_POLL_WAIT_S)
            if not self._take(desired, epoch) and time.monotonic() - asked_at < _HUB_RETRY_S:
                await asyncio.sleep(_HUB_RETRY_S)  # a hub that answers at once is not asked without pause

    async def _lead(self) -> int:
        """Our epoch; what is desired is read anew in each one before anything is done in its name."""
        async with self._lead_lock:
            epoch = await self._hub.ensure_lead()
            if epoch != self._fetched_epoch:
                self._take(await self._hub.fetch_desired(after=0, wait_s=0), epoch)
        return epoch

    def _take(self, desired: Desired | None, epoch: int) -> bool:
        """Note what is desired; returns whether it is new. Raises: WrongEpochError when it is of another lead."""
        if desired is None:
            return False
        if desired.epoch != epoch:
            self._hub.lose(epoch)
            raise WrongEpochError(f"desired state is of epoch {desired.epoch}, ours is {epoch}")
        self._fetched_epoch = epoch
        if desired == self._desired:
            return False
        self._desired = desired
        try:
            self._memory.save_desired(desired)
        except OSError as error:
            _log.warning("what is desired is not kept: %s; make room, a restart would begin with the one before", error)
        self._note_change()
        return True

    def _may_act(self) -> bool:
        """Whether engines are ours to start, stop and fill: we lead and follow what is desired now, or we end."""
        return self._is_ending or (self._hub.leads() and self._applied_epoch == self._hub.epoch)

    async def _keep_reporting(self) -> None:
        await _wait(self._report_due, self._settings.timing.observed_interval_s)
        async with self._hub_answer():
            await self._hub.report(self._observe(await self._lead()))

    async def _keep_witness(self) -> None:
        await asyncio.sleep(self._settings.timing.tick_s)
        try:
            await self._witness.send(self._fleet.living())
        except HubSilentError:
            await asyncio.sleep(_HUB_RETRY_S)  # the rows stay; what is wrong with the hub is told by the report

    async def _keep_reading(self) -> None:
        await asyncio.sleep(self._settings.timing.observed_interval_s)
        for key, engine in self._fleet.living().items():
            await self._witness.take_reading(key, engine)

    async def _keep_gains(self) -> None:
        interval_s = self._settings.timing.gain_interval_s
        await asyncio.sleep(interval_s)
        self._gains.note(self.demand.sample(), interval_s)
        unmeasured = self._fleet.find_unmeasured()
        for digest, engine in unmeasured:
            try:
                await self._gains.measure(digest, engine)
            except EngineError as error:
                _log.info("no gain of merging %.12s: %s", digest, error)
        if unmeasured or time.monotonic() - self._gains_saved_at > _GAINS_SAVED_EVERY_S:
            self._save_gains()

    async def _keep_store(self) -> None:
        """Sweep what is left of downloads once the hub said what it wants: what was wanted before goes on."""
        await asyncio.sleep(self._settings.timing.sweep_interval_s)
        if self._desired is not None and self._may_act():
            adapters = {adapter.digest for adapter in self._desired.adapters}
            weights = {one.weights_folder or one.base_digest for one in self._desired.replica_sets}
            try:
                await asyncio.to_thread(sweep_drafts, self._settings.store, adapters | weights)
            except OSError as error:
                _log.warning("the store is not swept: %s", error)

    def _save_gains(self) -> None:
        if self._desired is not None:
            self._gains.keep_only({adapter.digest for adapter in self._desired.adapters})
        self._gains_saved_at = time.monotonic()
        try:
            self._memory.save_gains(self._gains.book)
        except OSError as error:
            _log.warning("gains are not kept: %s", error)  # a full disk costs a measurement, not the pool

    async def _take_last_reading(self, replica: Replica) -> None:
        await self._witness.take_reading((replica.replica_id, replica.process.epoch), replica.engine)

    @contextlib.asynccontextmanager
    async def _hub_answer(self) -> Any:
        epoch = self._hub.epoch
        try:
            yield
        except (HubSilentError, WrongEpochError) as error:
            if self._is_news(error):
                _log.warning("%s; %s", error, _IN_FORCE if self._hub.leads() else _NOT_LEADING)
            self._hub_problem = error
            await asyncio.sleep(_HUB_RETRY_S if epoch is None or isinstance(error, HubSilentError) else 0)
        else:
            self._hub_problem = None

    def _is_news(self, error: PoolError) -> bool:
        """A hub is silent in many words at once; a file is wrong in one way at a time."""
        known = self._hub_problem
        if isinstance(error, DesiredFileError):
            return str(error) != str(known)
        return known is None or known.code != error.code

    def _show_routes(self) -> None:
        self.routes.publish(describe_routes(self._fleet.replicas()))
        if self._routes_file is not None and self._files is not None:
            self._routes_file.write(self.routes.routes, name_models(self._desired, self._files.names))

    def _observe(self, epoch: int) -> Observed:
        return Observed(
            epoch=epoch,
            generation_seen=self._desired.generation if self._desired else 0,
            replicas=self._fleet.observe_replicas(),
            adapters=self._fleet.observe_adapters(),
            wants=self._fleet.wants,
        )

    async def _end_replicas(self) -> None:
        self._is_ending = True  # nothing is started again while we drain, whatever the hub says meanwhile
        await self._fleet.stop_all()
        self._show_routes()
        if self._hub.epoch is not None:
            with contextlib.suppress(HubSilentError, WrongEpochError):
                await self._hub.report(self._observe(self._hub.epoch))
                await self._witness.send(self._fleet.living())

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._folders.close()
        self._save_gains()

    def _note_change(self) -> None:
        self._work_due.set()
        self._report_due.set()

    def _watch(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._broken.done():
            self._broken.set_exception(task.exception() or RuntimeError(task.get_name()))


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):  # not wait_for: that one can lose a cancellation in Python 3.11
            await event.wait()
    event.clear()
