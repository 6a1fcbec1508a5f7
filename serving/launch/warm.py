"""A program kept loaded in a child of this process, from which its like are forked.

It ends with this process; what it forked does not. Asking it for a fork is left to `loaded`.
"""

import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from serving.launch.loaded import LoadedProgram
from serving.launch.spec import LaunchSpec

_END_TIMEOUT_S = 2.0


class WarmProgram(LoadedProgram):
    """`argv`, to which the channel's descriptor is added, loads the program for all whose own argv begin with `forks`.

    They must have the environment `env`, because libraries read theirs while they load; only `per_start` may differ.
    """

    timeout_s = 120.0
    """The first start waits for the loading too."""

    def __init__(
        self, argv: tuple[str, ...], *, forks: tuple[str, ...], env: Mapping[str, str], per_start: str, log_path: Path
    ) -> None:
        super().__init__(forks)
        self._argv = argv
        self._env = dict(env)
        self._per_start = per_start
        self._log_path = log_path
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def fits(self, spec: LaunchSpec) -> bool:
        """Whether a fork is what starting `spec` anew would be."""
        env = {name: value for name, value in spec.env.items() if name != self._per_start}
        return super().fits(spec) and env == self._env

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

    def _send(self, message: bytes, writer: int) -> None:
        socket.send_fds(self._open(), [message], [writer])

    def _give_up(self) -> None:
        self.close()  # the next start loads it again

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
