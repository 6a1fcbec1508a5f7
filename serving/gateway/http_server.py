"""Listens, keeps the set of client connections, expires the slow ones and winds down without cutting an answer.

Parsing is left to `connection`, answering to the callable given.
"""

from __future__ import annotations

import asyncio
import socket

from serving.gateway.connection import MAX_CONNECTIONS, ClientConnection, Serve

_SWEEP_S = 1.0
_BACKLOG = 2048


class ListenError(Exception):
    """The address cannot be listened on; the message says which and why."""


class HttpServer:
    """Every client connection of this process."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connection_count(self) -> int:
        """Return how many clients are connected."""
        return len(self._connections)

    async def listen(self, listener: socket.socket) -> None:
        """Begin to accept on a bound socket."""
        loop = asyncio.get_running_loop()

        def accept() -> ClientConnection:
            full = len(self._connections) >= MAX_CONNECTIONS
            return ClientConnection(self._serve, self._connections, loop, full=full)

        self._server = await loop.create_server(accept, sock=listener, backlog=_BACKLOG)
        self._sweeper = loop.create_task(self._sweep())

    async def wind_down(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Accept nothing more, let answers end for `grace_s` or until `hurry`, then cut the rest."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.wind_down()
        give_up_s = asyncio.get_running_loop().time() + grace_s
        while self._connections and not hurry.is_set() and asyncio.get_running_loop().time() < give_up_s:
            await asyncio.sleep(0.02)
        for connection in tuple(self._connections):
            connection.cut()
        await asyncio.sleep(0.05)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = asyncio.get_running_loop().time()
            for connection in tuple(self._connections):
                connection.expire(now_s)


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a bound socket; `shared` lets other processes bind the same port. Raises: ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --listen") from error
    return listener
