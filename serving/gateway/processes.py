"""Several gateway processes on one port: each with its own journal, allowances and epoch, started again when it dies.

The kernel spreads connections over them (SO_REUSEPORT); serving is left to `server`.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_RESTART_PAUSE_S = 1.0
_STOP_S = 60.0
_log = logging.getLogger(__name__)


def run_processes(argv: Sequence[str], journal_dir: Path, count: int) -> int:
    """Run `count` processes with the options of `argv` until SIGTERM or SIGINT; return 0 when all stopped cleanly."""
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    children = [_start(argv, journal_dir / str(number)) for number in range(1, count + 1)]
    while not stopping:
        time.sleep(_RESTART_PAUSE_S / 4)
        for index, child in enumerate(children):
            if child.poll() is not None and not stopping:
                _log.error("gateway process %d ended with status %d and is started again", index + 1, child.returncode)
                time.sleep(_RESTART_PAUSE_S)
                children[index] = _start(argv, journal_dir / str(index + 1))
    for child in children:
        child.send_signal(signal.SIGTERM)
    return max(child.wait(_STOP_S) for child in children)


def _start(argv: Sequence[str], journal_dir: Path) -> subprocess.Popen[bytes]:
    own = ["--processes", "1", "--shared-port", "--journal", str(journal_dir)]
    return subprocess.Popen([sys.executable, "-m", "serving.gateway", *argv, *own])
