"""A program that somebody else keeps loaded and that listens at a socket of this user's: any process may ask it.

Asking it for a fork is left to `loaded`, loading it and keeping it alive to whoever started it.
"""

import socket
from pathlib import Path

from serving.launch.loaded import LoadedProgram

_SEND_TIMEOUT_S = 1.0


class ListeningProgram(LoadedProgram):
    """Forks all whose argv begin with `forks` from what `listen`s at `path`; where nobody does, nothing is forked.

    A fork has the environment of its spec, but its libraries read the loaded program's while they were loaded.
    """

    timeout_s = 10.0
    """Shorter than the locks that a worker keeps alive meanwhile, by a good deal."""

    def __init__(self, path: Path, *, forks: tuple[str, ...]) -> None:
        super().__init__(forks)
        self._path = path

    def _send(self, message: bytes, writer: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_SEND_TIMEOUT_S)  # a listener that stands still has a full queue at last
            channel.connect(str(self._path))
            socket.send_fds(channel, [message], [writer])

    def _give_up(self) -> None:
        """Leave it to whoever keeps it; what it comes to too late it does not fork, since nobody waits any more."""
