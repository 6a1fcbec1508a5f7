"""Has programs forked from one that is loaded, so that its imports are paid once, and waits until each is on record.

The other side is `forks.serve` behind the program's imports. Where the loaded program runs and who keeps it is left to
subclasses, what to do where nothing was forked to `local`.
"""

import json
import os
import select
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from serving.launch.forks import REQUEST_BYTES
from serving.launch.spec import LaunchSpec, StartFailedError


class LoadedProgram(ABC):
    """Forks all whose argv begin with `forks`."""

    timeout_s: ClassVar[float]

    def __init__(self, forks: tuple[str, ...]) -> None:
        self._forks = forks

    def fits(self, spec: LaunchSpec) -> bool:
        """Whether a fork is what starting `spec` anew would be."""
        return spec.argv[: len(self._forks)] == self._forks

    def fork(self, spec: LaunchSpec, record_path: Path) -> str | None:
        """Start `spec`; blocks until its pid is in the record, the first time until the program is loaded.

        Returns what went wrong, empty for nothing, None where nothing was forked. Raises: StartFailedError.
        """
        argv = spec.argv[len(self._forks) - 1 :]
        record, cwd = str(record_path.absolute()), str(spec.cwd.absolute())  # who loaded it may stand in another folder
        message = json.dumps({"record": record, "argv": argv, "env": dict(spec.env), "cwd": cwd}).encode()
        if len(message) > REQUEST_BYTES:
            return None
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as answer:
            try:
                self._send(message, writer)
            except OSError:
                self._give_up()
                return None
            finally:
                os.close(writer)
            problem = _read_to_end(answer.fileno(), self.timeout_s)
        if problem is None:
            self._give_up()
            raise StartFailedError(f"process {spec.name} was not forked within {self.timeout_s:g} s; start it again")
        # A loaded program that died closed the pipe too, and then nobody is left who could still start anything.
        return problem if problem or json.loads(record_path.read_text(encoding="utf-8"))["pid"] else None

    @abstractmethod
    def _send(self, message: bytes, writer: int) -> None:
        """Hand a request over, with the descriptor whose closing answers it. Raises: OSError."""

    @abstractmethod
    def _give_up(self) -> None:
        """Do what is to be done about a loaded program that cannot be reached or is silent."""


def _read_to_end(descriptor: int, timeout_s: float) -> str | None:
    """Return everything until the other end is closed, None after `timeout_s`."""
    found, until_s, poll = b"", time.monotonic() + timeout_s, select.poll()
    poll.register(descriptor, select.POLLIN)
    while (left_s := until_s - time.monotonic()) > 0:
        if poll.poll(left_s * 1000):
            piece = os.read(descriptor, 4096)
            if not piece:
                return found.decode(errors="replace")
            found += piece
    return None
