"""A program kept loaded in a child of this process, from which its like are forked: imports are paid once.

The child is `forks.serve` behind the program's imports. It ends with this process; what it forked does not. Records and
what to do where nothing was forked are left to `local`.
"""

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from serving.launch.forks import REQUEST_BYTES
from serving.launch.spec import LaunchSpec, StartFailedError

LOAD_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 2.0


class WarmProgram:
    """`argv`, to which the channel's descriptor is added, loads the program for all whose own argv begin with `forks`.

    They must have the environment `env`, because libraries read theirs while they load; only `per_start` may differ.
    """

    def __init__(
        self, argv: tuple[str, ...], *, forks: tuple[str, ...], env: Mapping[str, str], per_start: str, log_path: Path
    ) -> None:
        self._argv = argv
        self._forks = forks
        self._env = dict(env)
        self._per_start = per_start
        self._log_path = log_path
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def fits(self, spec: LaunchSpec) -> bool:
        """Whether a fork is what starting `spec` anew would be."""
        env = {name: value for name, value in spec.env.items() if name != self._per_start}
        return spec.argv[: len(self._forks)] == self._forks and env == self._env

    def fork(self, spec: LaunchSpec, record_path: Path) -> str | None:
        """Start `spec`; blocks until its pid is in the record, the first time until the program is loaded.

        Returns what went wrong, empty for nothing, None where nothing was forked. Raises: StartFailedError.
        """
        argv = spec.argv[len(self._forks) - 1 :]
        request = {"record": str(record_path), "argv": argv, "env": dict(spec.env), "cwd": str(spec.cwd.absolute())}
        message = json.dumps(request).encode()
        if len(message) > REQUEST_BYTES:
            return None
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as answer:
            try:
                socket.send_fds(self._open(), [message], [writer])
            except OSError:
                self.close()
                return None
            finally:
                os.close(writer)
            problem = _read_to_end(answer.fileno(), LOAD_TIMEOUT_S)
        if problem is None:
            self.close()
            raise StartFailedError(f"process {spec.name} was not forked within {LOAD_TIMEOUT_S:g} s; start it again")
        # A loaded program that died closed the pipe too, and then nobody is left who could still start anything.
        return problem if problem or json.loads(record_path.read_text(encoding="utf-8"))["pid"] else None

    def close(self) -> None:
        """End the loaded program; what was forked from it goes on."""
        with self._lock:
            child, channel, self._child, self._channel = self._child, self._channel, None, None
        if channel is not None:
            channel.close()
        if child is not None:
            try:
                child.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _open(self) -> socket.socket:
        with self._lock:
            if self._channel is None or self._child is None or self._child.poll() is not None:
                self._child, self._channel = self._load()
            return self._channel

    def _load(self) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with theirs, self._log_path.open("ab") as log:
            child = subprocess.Popen(
                [*self._argv, str(theirs.fileno())],
                env=self._env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return child, ours


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
