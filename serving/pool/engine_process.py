"""The operating-system side of one replica: name, port, start, end; whether it answers is left to the replica.

The labels of the started process carry set and slot, so that a restarted controller knows what it found.
"""

import asyncio
import logging
import signal
import socket
from pathlib import Path

from serving.contract import ReplicaSet, Slot, dumps, loads
from serving.launch import Handle, Launch, LaunchError, LaunchSpec, ProcessState
from serving.pool.engine_command import CommandBuilder
from serving.pool.engine_logs import LOG_BYTES, drop_old_logs
from serving.pool.errors import EngineError
from serving.pool.placement import Planned
from serving.pool.settings import Timing
from serving.pool.witness_tail import witness_path
from serving.witness.middleware import FILE_VARIABLE

_log = logging.getLogger(__name__)


class EngineProcess:
    """At most one started engine; `epoch` is 0 before the first."""

    def __init__(self, launch: Launch, builder: CommandBuilder, state: Path, timing: Timing) -> None:
        self._launch = launch
        self._builder = builder
        self._state = state
        self._timing = timing
        self._handle: Handle | None = None
        self._starting: asyncio.Future[Handle] | None = None
        self.epoch = 0
        self.url = ""

    def adopt(self, handle: Handle) -> None:
        """Take over a process that an earlier controller started."""
        self._handle = handle
        self.epoch, self.url = int(handle.labels["epoch"]), handle.labels["url"]

    def is_started(self) -> bool:
        """Whether there is a process, running or just ended."""
        return self._handle is not None

    def pid(self) -> int | None:
        """Process id of the engine's API server."""
        return self._handle.pid if self._handle else None

    def cpu_s(self) -> float:
        """Processor seconds of the engine's processes so far."""
        return self._launch.cpu_s(self._handle) if self._handle else 0.0

    async def start(self, planned: Planned, *, epoch: int, model: Path) -> None:
        """Start the engine of `planned` as `epoch` on a free loopback port. Raises: EngineError."""
        port = _find_free_port()
        command = self._builder(planned.replica_set, planned.slot, model=model, port=port)
        self.epoch, self.url = epoch, f"http://127.0.0.1:{port}"
        labels = {"replica_id": planned.replica_id, "epoch": str(epoch), "url": self.url}
        labels |= {"replica_set": dumps(planned.replica_set), "slot": dumps(planned.slot)}
        spec = LaunchSpec(
            name=f"{planned.replica_id}-{epoch}",
            argv=command.argv,
            env={**command.environment, FILE_VARIABLE: str(self._make_witness_path(planned.replica_id))},
            cwd=self._state,
            log_path=self._make_log_path(planned.replica_id),
            labels=labels,
            log_bytes=LOG_BYTES,
        )
        try:
            self._starting = asyncio.ensure_future(asyncio.to_thread(self._launch.start, spec))
            self._handle = await asyncio.shield(self._starting)
        except LaunchError as error:
            raise EngineError(error.code, str(error)) from error
        _log.info("replica %s epoch %d starts on %s, pid %d", planned.replica_id, epoch, self.url, self._handle.pid)

    def end_reason(self) -> str | None:
        """None while it runs, else a reason code such as `engine_killed_sigill` or `engine_exited_1`."""
        if self._handle is None:
            return "engine_not_started"
        observed = self._launch.poll(self._handle)
        if observed.state in (ProcessState.STARTING, ProcessState.RUNNING):
            return None
        if observed.exit_code is None:
            return "engine_lost"
        if observed.exit_code < 0:
            return f"engine_killed_{signal.Signals(-observed.exit_code).name.lower()}"
        return f"engine_exited_{observed.exit_code}"

    async def stop(self) -> None:
        """Ask it to end, wait, then make sure; forgets it. Idempotent."""
        await self._settle_start()
        if self._handle is None:
            return
        self._launch.signal(self._handle, "term")
        deadline = asyncio.get_running_loop().time() + self._timing.stop_timeout_s
        while self.end_reason() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(self._timing.poll_s)
        await self.kill()

    async def kill(self) -> None:
        """End it now with its whole process group; forgets it. Idempotent."""
        await self._settle_start()
        if self._handle is None:
            return
        await asyncio.to_thread(self._launch.fence, self._handle)
        self._launch.forget(self._handle)
        self._handle = None

    def _make_witness_path(self, replica_id: str) -> Path:
        path = witness_path(self._state, replica_id, self.epoch)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _make_log_path(self, replica_id: str) -> Path:
        path = self._state / "logs" / f"{replica_id}.log"
        drop_old_logs(path.parent, in_use={path, *(handle.log_path for handle in self._launch.list_mine())})
        return path

    async def _settle_start(self) -> None:
        """A start that was cancelled half-way still made a process."""
        starting, self._starting = self._starting, None
        if starting is None:
            return
        try:
            self._handle = await starting
        except LaunchError as error:
            _log.warning("engine start: %s", error)


def planned_of(handle: Handle) -> Planned:
    """What a found process was started for. Raises: ContractError, KeyError when its labels are not ours."""
    return Planned(loads(ReplicaSet, handle.labels["replica_set"]), loads(Slot, handle.labels["slot"]))


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
