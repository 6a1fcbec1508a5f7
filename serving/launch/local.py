"""Processes of this machine, one record file each in a folder; which to start and when is left to the caller.

A record survives its writer: any later `LocalLaunch` on the same folder adopts what still runs. A process is known by
boot id, pid and start ticks together, so a recycled pid is never signalled.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.launch import run
from serving.launch.loaded import LoadedProgram
from serving.launch.spec import (
    Handle,
    LaunchSpec,
    NameTakenError,
    Observed,
    ProcessState,
    SignalName,
    StartFailedError,
    StillRunningError,
)

_SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "kill": signal.SIGKILL}
_START_TIMEOUT_S = 30.0
_RECORD_SUFFIX = ".json"


class LocalLaunch:
    """The `Launch` of one machine. Folder and logs are private to the user (0700).

    What fits `loaded` is forked from it, the rest and whatever it cannot fork is started anew.
    """

    def __init__(self, folder: Path, loaded: LoadedProgram | None = None) -> None:
        self._folder = folder
        self._loaded = loaded
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, spec: LaunchSpec) -> Handle:
        """Start `spec` in its own session; returns once its pid is on disk.

        Raises: NameTakenError, StartFailedError.
        """
        path = self._claim_name(spec)
        try:
            problem = self._fork(spec, path)
            if problem is None:
                problem = _start_anew(spec, path)
        except StartFailedError:
            path.unlink(missing_ok=True)  # whoever still wants to start it finds no record and gives up
            raise
        if problem:
            path.unlink(missing_ok=True)
            raise StartFailedError(f"process {spec.name} did not start: {problem}; check argv[0], cwd and log folder")
        return _read_handle(path)

    def poll(self, handle: Handle) -> Observed:
        """What is known now; never blocks."""
        ended = self._read_exit(handle)
        if ended is not None:
            return ended
        record = _read_json(self._record_path(handle.name)) or {}
        if not record.get("pid"):
            return Observed(ProcessState.STARTING if record and _is_young(handle) else ProcessState.LOST)
        if _is_same(handle.boot_id, record["pid"], record["start_ticks"]):
            return Observed(ProcessState.RUNNING)
        if _is_same(handle.boot_id, record["watcher_pid"], record["watcher_ticks"]):
            return Observed(ProcessState.RUNNING)  # ended this moment; the watcher is about to write how
        return self._read_exit(handle) or Observed(ProcessState.LOST)

    def signal(self, handle: Handle, signal_name: SignalName) -> bool:
        """Signal the whole process group; False when it was gone already."""
        if not _is_same(handle.boot_id, handle.pid, handle.start_ticks):
            return False
        try:
            os.killpg(handle.pid, _SIGNALS[signal_name])
        except ProcessLookupError:
            return False
        return True

    def cpu_s(self, handle: Handle) -> float:
        """Processor seconds that its process group used so far, ended children of running processes included."""
        return run.read_group_ticks(handle.pid) / os.sysconf("SC_CLK_TCK")

    def find(self, name: str) -> Handle | None:
        """The process of that name, running or ended, unless forgotten."""
        path = self._record_path(name)
        return _read_handle(path) if path.exists() else None

    def list_mine(self) -> list[Handle]:
        """Every process started here and not forgotten, by name."""
        return [_read_handle(path) for path in sorted(self._folder.glob(f"*{_RECORD_SUFFIX}"))]

    def fence(self, handle: Handle, *, timeout_s: float = 10.0) -> Observed:
        """Kill it and return only when it can do nothing any more. Raises: StillRunningError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.signal(handle, "kill")
            observed = self.poll(handle)
            if observed.state in (ProcessState.EXITED, ProcessState.LOST):
                return observed
            if time.monotonic() > deadline:
                raise StillRunningError(f"{handle.name} (pid {handle.pid}) outlived SIGKILL by {timeout_s:g} s")
            time.sleep(0.02)

    def forget(self, handle: Handle) -> None:
        """Drop the record of an ended process, which frees its name. Raises: StillRunningError."""
        if self.poll(handle).state in (ProcessState.STARTING, ProcessState.RUNNING):
            raise StillRunningError(
                f"process {handle.name} (pid {handle.pid}) is running; end or fence it before forgetting it"
            )
        self._exit_path(handle.name).unlink(missing_ok=True)
        self._record_path(handle.name).unlink(missing_ok=True)

    def abandon(self, handle: Handle) -> None:
        """Give up a start that had no pid when it was found; a program that has one by now is killed."""
        path = self._record_path(handle.name)
        aside = path.with_name(f"{path.name}.abandoned")
        path.replace(aside)  # from here on whoever would still start it finds no record
        self.signal(_read_handle(aside), "kill")
        aside.unlink()

    def _fork(self, spec: LaunchSpec, path: Path) -> str | None:
        loaded = self._loaded
        return loaded.fork(spec, path) if loaded is not None and loaded.fits(spec) else None

    def _claim_name(self, spec: LaunchSpec) -> Path:
        record = {
            "name": spec.name,
            "argv": list(spec.argv),
            "cwd": str(spec.cwd.absolute()),
            "log_path": str(spec.log_path.absolute()),
            "log_bytes": spec.log_bytes,
            "labels": dict(spec.labels),
            "boot_id": _read_boot_id(),
            "started_us": time.time_ns() // 1000,
            "pid": 0,
            "start_ticks": 0,
        }
        path = self._record_path(spec.name)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}.draft")
        run.write_atomically(draft, record)
        try:
            os.link(draft, path)  # whole and exclusive: a record is never seen half-written or overwritten
        except FileExistsError:
            raise NameTakenError(f"process {spec.name} exists already; forget it or take another name") from None
        finally:
            draft.unlink()
        return path

    def _read_exit(self, handle: Handle) -> Observed | None:
        ended = _read_json(self._exit_path(handle.name))
        if ended is None:
            return None
        return Observed(ProcessState.EXITED, ended["exit_code"], _as_time(ended["ended_us"]))

    def _record_path(self, name: str) -> Path:
        return self._folder / f"{name}{_RECORD_SUFFIX}"

    def _exit_path(self, name: str) -> Path:
        return self._record_path(name).with_suffix(run.EXIT_SUFFIX)


def _start_anew(spec: LaunchSpec, path: Path) -> str:
    """Start a watcher for the record at `path`; returns what hindered it, empty for nothing."""
    watcher = subprocess.run(
        [sys.executable, "-I", run.__file__, str(path)],
        env=dict(spec.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        timeout=_START_TIMEOUT_S,
        check=False,
    )
    reason = watcher.stderr.decode(errors="replace").strip()
    return "" if watcher.returncode == 0 else reason or f"its watcher ended with {watcher.returncode}"


def _is_same(boot_id: str, pid: int, start_ticks: int) -> bool:
    return pid > 0 and boot_id == _read_boot_id() and run.read_start_ticks(pid) == start_ticks


def _is_young(handle: Handle) -> bool:
    return datetime.now(UTC) - handle.started_at < timedelta(seconds=_START_TIMEOUT_S)


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _read_handle(path: Path) -> Handle:
    record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Handle(
        name=record["name"],
        pid=record["pid"],
        boot_id=record["boot_id"],
        start_ticks=record["start_ticks"],
        started_at=_as_time(record["started_us"]),
        log_path=Path(record["log_path"]),
        argv=tuple(record["argv"]),
        labels=dict(record["labels"]),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def _as_time(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC)
