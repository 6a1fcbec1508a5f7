"""Starts, asks and stops supervisord, and sees to it that stopping leaves nothing running.

It leaves which processes there are to `hub.cli.processes`.
"""

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from hub.cli.processes import Process, configuration_path, list_processes, socket_path, write_configuration
from hub.errors import GuanmoError
from hub.settings import Settings
from serving.launch import LocalLaunch, ProcessState

MINIMUM_DISK_BYTES = 1_000_000_000
MAXIMUM_SOCKET_PATH = 100
REFUSED_SIGNS = frozenset(';#%?"\n\r')
"""supervisord's configuration would read them as comments, quotes or new lines."""
STOP_TIMEOUT_S = 90.0
LAUNCH_FOLDERS = ("run/trainers", "pool/processes")
TRAINER_STOP_S = 20.0


class StartError(GuanmoError):
    """The marketplace cannot start here now."""

    code = "cannot_start"


@dataclass(frozen=True)
class Condition:
    """How one process is: supervisord's word for it, its pid, and whether it answers."""

    name: str
    state: str
    pid: int
    since_s: int
    healthy: bool
    url: str


def start_all(settings: Settings, processes: list[Process] | None = None) -> None:
    """Start supervisord and with it every process; return once it answers, before they are well.

    Raises:
        StartError: already running, a port is taken, too little disk, or a path that cannot be used.
    """
    processes = list_processes(settings) if processes is None else processes
    check_start(settings, processes)
    configuration = write_configuration(settings, processes)
    with (settings.home / "logs" / "supervisord.out").open("ab") as log:
        try:
            # It goes to the background by itself once its socket is open.
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=False,
            )
            _wait_until_up(settings)
        except BaseException:
            # Ctrl-C may come while it answers to nobody yet.
            _sweep(settings.home)
            raise


def _wait_until_up(settings: Settings) -> None:
    deadline = time.monotonic() + 20
    while not is_up(settings):
        if time.monotonic() > deadline:
            raise _refuse("supervisord did not answer within 20 s", f"see {settings.home}/logs/supervisord.out")
        time.sleep(0.1)


def check_start(settings: Settings, processes: list[Process]) -> None:
    """Pass if nothing of this installation runs, all ports are free, and disk and paths suffice.

    Raises:
        StartError: says the value, the limit and what to change.
    """
    if is_up(settings):
        raise _refuse(f"this marketplace ({settings.home}) is already running", "use 'guanmo status' or 'guanmo down'")
    if len(str(socket_path(settings.home))) > MAXIMUM_SOCKET_PATH:
        raise _refuse(f"the path {settings.home} is longer than a socket may be", "set GUANMO_HOME to a shorter path")
    if not REFUSED_SIGNS.isdisjoint(str(settings.home)):
        raise _refuse(f'the path {settings.home} holds one of ; # " or a line break', "set GUANMO_HOME to a plain path")
    free = shutil.disk_usage(settings.home).free
    if free < MINIMUM_DISK_BYTES:
        raise _refuse(
            f"free disk is {free / 1e9:.2f} GB, the limit is {MINIMUM_DISK_BYTES / 1e9:.0f} GB", "free some space"
        )
    for process in processes:
        if process.port is not None and not _is_free(process.host, process.port):
            variable = f"GUANMO_{process.name.upper()}_PORT"
            raise _refuse(f"port {process.port} for {process.name} is taken", f"stop what holds it or set {variable}")


def is_up(settings: Settings) -> bool:
    """Say whether this installation's supervisord answers."""
    with contextlib.suppress(OSError, http.client.HTTPException), _control(settings.home) as control:
        return bool(control.supervisor.getState())
    return False


def read_conditions(settings: Settings, processes: list[Process] | None = None) -> list[Condition]:
    """Return how each process is; empty when nothing runs."""
    if not is_up(settings):
        return []
    listed = list_processes(settings) if processes is None else processes
    expected = {process.name: process for process in listed}
    with _control(settings.home) as control:
        found: Any = control.supervisor.getAllProcessInfo()
    by_name = {item["name"]: item for item in found}
    return [_describe(process, by_name[name]) for name, process in expected.items() if name in by_name]


def wait_until_well(
    settings: Settings, *, timeout_s: float, tell: Callable[[str, float], None], processes: list[Process] | None = None
) -> None:
    """Wait until every process answers; `tell(name, seconds)` is called as each becomes well.

    Raises:
        StartError: a process gave up or the time ran out; names its log.
    """
    started, well = time.monotonic(), set[str]()
    while True:
        conditions = read_conditions(settings, processes)
        for condition in conditions:
            if condition.healthy and condition.name not in well:
                well.add(condition.name)
                tell(condition.name, time.monotonic() - started)
            if condition.state in ("FATAL", "EXITED"):
                raise _refuse(f"{condition.name} does not start", f"read 'guanmo logs {condition.name}'")
        if conditions and len(well) == len(conditions):
            return
        if time.monotonic() - started > timeout_s:
            waiting = ", ".join(item.name for item in conditions if item.name not in well)
            raise _refuse(f"{waiting or 'supervisord'} did not answer within {timeout_s:.0f} s", "read 'guanmo logs'")
        time.sleep(0.25)


def stop_all(settings: Settings, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
    """Stop every process of this installation, engines and trainers included; return how many were left to sweep."""
    if is_up(settings):
        pid = int((settings.home / "run" / "supervisord.pid").read_text())
        with contextlib.suppress(OSError, Fault, http.client.HTTPException), _control(settings.home) as control:
            control.supervisor.shutdown()
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            psutil.Process(pid).wait(timeout_s)
    return sum(_end_launched(settings.home / folder) for folder in LAUNCH_FOLDERS) + _sweep(settings.home)


def _end_launched(folder: Path) -> int:
    """End what was started through launch records: trainers commit their step on SIGTERM and resume later."""
    if not folder.is_dir():
        return 0
    launch = LocalLaunch(folder)
    signalled = [handle for handle in launch.list_mine() if launch.signal(handle, "term")]
    deadline = time.monotonic() + TRAINER_STOP_S
    running = signalled
    while running and time.monotonic() < deadline:
        time.sleep(0.1)
        running = [handle for handle in running if launch.poll(handle).state is ProcessState.RUNNING]
    for handle in running:
        launch.fence(handle)
    return len(signalled)


def _sweep(home: Path) -> int:
    left = list(_find_ours(home))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=15)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(left)


def _find_ours(home: Path) -> Iterator[psutil.Process]:
    # supervisord marks its children's environment with its socket, and grandchildren inherit the mark; itself it is
    # known by the configuration on its command line.
    mark, configuration = f"unix://{socket_path(home)}", str(configuration_path(home))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUPERVISOR_SERVER_URL") == mark or configuration in process.cmdline():
                yield process


@contextlib.contextmanager
def _control(home: Path) -> Iterator[Any]:
    transport = SupervisorTransport(None, None, f"unix://{socket_path(home)}")
    try:
        yield ServerProxy("http://supervisor", transport=transport)
    finally:
        transport.close()


def _describe(process: Process, found: dict[str, Any]) -> Condition:
    running = found["statename"] == "RUNNING"
    healthy = running and (not process.health_url or _answers(process.health_url))
    since = max(0, int(found["now"]) - int(found["start"])) if running else 0
    return Condition(process.name, str(found["statename"]), int(found["pid"]), since, healthy, process.health_url)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  our own loopback addresses
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def _is_free(bind: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError:
            return False
    return True


def _refuse(problem: str, remedy: str) -> StartError:
    return StartError(f"{problem[0].upper()}{problem[1:]}; {remedy}.", f"{problem}；{remedy}。")
