"""Several gateway processes on one port: each with its own journal, allowances and epoch, started again when it dies.

The kernel spreads connections over them (SO_REUSEPORT); rates, answers and fair shares are counted in a folder that
they share. The first one's journal lies in the folder given, the others' in folders below. What is there of processes
that are no more, because fewer were asked for, is settled with the hub. Serving is left to `server`.
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


def find_left(journal_dir: Path, count: int) -> list[Path]:
    """Return the journal folders of processes beyond `count`."""
    found = [path.parent for path in journal_dir.glob("*/gateway.journal") if path.parent.name.isdigit()]
    return sorted(path for path in found if int(path.name) > count)


def run_processes(argv: Sequence[str], journal_dir: Path, count: int) -> int:
    """Run `count` processes with the options of `argv` until SIGTERM or SIGINT; return 0 when all stopped cleanly."""
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    commands = [_command(argv, journal_dir, number, count) for number in range(1, count + 1)]
    for left in find_left(journal_dir, count):
        commands.append([*_command(argv, journal_dir, int(left.name), count), "--settle-only"])
    children = {number: subprocess.Popen(command) for number, command in enumerate(commands, start=1)}
    while not stopping:
        time.sleep(_RESTART_PAUSE_S / 4)
        for number, child in list(children.items()):
            if child.poll() is None or stopping:
                continue
            if number > count and child.returncode == 0:
                del children[number]
                continue
            _log.error("gateway process %d ended with status %d and is started again", number, child.returncode)
            time.sleep(_RESTART_PAUSE_S)
            children[number] = subprocess.Popen(child.args)
    for child in children.values():
        child.send_signal(signal.SIGTERM)
    return max(child.wait(_STOP_S) for number, child in children.items() if number <= count)


def _command(argv: Sequence[str], journal_dir: Path, number: int, count: int) -> list[str]:
    own = journal_dir if number == 1 else journal_dir / str(number)
    options = ["--processes", "1", "--shared-port", "--peers", str(count), "--shared", str(journal_dir)]
    return [sys.executable, "-m", "serving.gateway", *argv, *options, "--journal", str(own)]
