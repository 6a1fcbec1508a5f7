"""One process of the gateway, forked from a loaded one: a start anew is seconds of imports on a busy machine.

Several processes of one gateway are still started by its first one, each anew.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path

from serving.launch import LaunchSpec, LocalLaunch, ProcessState, WarmProgram
from serving.pool.engine_start import FORK_AT

_PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("loaded_gateway.py")))
_OF_EACH_TEST = "PYTEST_CURRENT_TEST"
_serial = count()


class GatewayProcess:
    """Started with the options of `serving.gateway`; its record lies in `folder`."""

    def __init__(self, options: Sequence[str], folder: Path, log_path: Path) -> None:
        self._launch = LocalLaunch(folder, _share_loaded())
        log_path.unlink(missing_ok=True)
        argv = (*_PROGRAM, *options)
        spec = LaunchSpec(f"gateway-{next(_serial)}", argv, dict(os.environ), Path.cwd(), log_path)
        self._handle = self._launch.start(spec)
        self.pid = self._handle.pid

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        seen = self._launch.poll(self._handle)
        return seen.exit_code if seen.state is ProcessState.EXITED else None

    def wait(self, timeout_s: float) -> int:
        """Return its exit status once it has ended. Raises: TimeoutError."""
        give_up_at = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"the gateway runs on after {timeout_s} s")
            time.sleep(0.01)
        return status

    def tell_to_stop(self) -> None:
        """Tell it alone: what it started is its own to stop."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


@cache
def _share_loaded() -> WarmProgram:
    """One loaded gateway for all worlds of this process, with which it ends."""
    environment = {name: value for name, value in os.environ.items() if name != _OF_EACH_TEST}
    load, log = (*_PROGRAM, FORK_AT), Path(os.devnull)
    return WarmProgram(load, forks=_PROGRAM, env=environment, per_start=_OF_EACH_TEST, log_path=log)
