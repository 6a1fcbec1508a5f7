"""HTTP/1.1 to engines straight on the transport: kept connections, answers as they come, back-pressure.

Which engine gets what is left to `dispatch`, what its bytes mean to `relay`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools

CONNECT_TIMEOUT_S = 5.0
# Shorter than the keep-alive of the engines, so that no request meets a connection just being closed.
KEPT_S = 3.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024

Sink = Callable[[bytes], None]


class EngineUnreachableError(Exception):
    """No connection could be made, so the engine has seen nothing."""


class EngineLostError(Exception):
    """The engine had the request and its answer broke off."""


class EngineAnswer:
    """One answer under way. `last_byte_s` is loop time; `close` must be called when done with it."""

    def __init__(self, connection: _EngineConnection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.last_byte_s = loop.time()
        self._connection = connection
        self._head: asyncio.Future[None] = loop.create_future()
        self._end: asyncio.Future[None] = loop.create_future()
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._sink: Sink | None = None

    def head(self) -> asyncio.Future[None]:
        """Return what is done once the status is there. Raises, when awaited: EngineLostError."""
        return self._head

    async def read(self) -> bytes:
        """Return the whole body. Raises: EngineLostError, also above 64 MiB."""
        await self._end
        return b"".join(self._pieces)

    async def pipe(self, sink: Sink) -> None:
        """Hand every piece to `sink` as it arrives, within the reading of the socket. Raises: EngineLostError."""
        pieces, self._pieces = self._pieces, []
        self._sink = sink
        for piece in pieces:
            sink(piece)
        await self._end

    def flow(self, reading: bool) -> None:
        """Stop or go on reading from the engine; it stops generating when its buffers are full."""
        self._connection.flow(reading)

    def close(self) -> None:
        """Give the connection back if the answer is complete, else close it, which aborts the request."""
        self._sink = None
        self._connection.release(self)

    def take_head(self, status: int) -> None:
        """Note the status."""
        self.status = status
        if not self._head.done():
            self._head.set_result(None)

    def take(self, piece: bytes, now_s: float) -> bool:
        """Note a piece of the body; False when the answer is larger than allowed."""
        self.last_byte_s = now_s
        if self._sink is not None:
            self._sink(piece)
            return True
        self._pieces.append(piece)
        self._size_bytes += len(piece)
        return self._size_bytes <= MAX_ANSWER_BYTES

    def take_end(self, error: EngineLostError | None) -> None:
        """Note the end, or that there will be none."""
        for waiter in (self._head, self._end):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting any more

    @property
    def complete(self) -> bool:
        """Return whether the whole answer came."""
        return self._end.done() and not self._end.cancelled() and self._end.exception() is None


class _EngineConnection(asyncio.Protocol):
    """One kept connection; it carries one request at a time."""

    def __init__(self, pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since_s = 0.0
        self._pool = pool
        self._loop = loop
        self._answer: EngineAnswer | None = None
        self._keep = False
        # It begins anew after each whole answer; after any other the connection is closed.
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self)
        if self._answer is not None:
            self._answer.take_end(EngineLostError(str(error or "the engine closed the connection")))

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.complete:
            # Nobody asked for it: it is no part of this answer and must not become the beginning of the next one.
            raise EngineLostError("the engine answered more than it was asked for")

    def on_headers_complete(self) -> None:
        if self._answer is not None:
            self._answer.take_head(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        if self._answer is not None and not self._answer.take(body, self._loop.time()):
            self._transport.abort()

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._keep = bool(self._parser.should_keep_alive())
            self._answer.take_end(None)

    def send(self, request: bytes) -> EngineAnswer:
        self._keep = False
        self._answer = EngineAnswer(self, self._loop)
        self._transport.write(request)
        return self._answer

    def flow(self, reading: bool) -> None:
        if self._transport.is_closing():
            return
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def release(self, answer: EngineAnswer) -> None:
        if answer is not self._answer:
            return
        self._answer = None
        if answer.complete and self._keep and not self._transport.is_closing():
            self._transport.resume_reading()
            self._pool.keep(self)
        else:
            self._transport.abort()

    def usable(self, now_s: float) -> bool:
        return not self._transport.is_closing() and now_s - self.idle_since_s < KEPT_S

    def abort(self) -> None:
        self._transport.abort()


class _Pool:
    """The idle connections to one address, the last used first."""

    def __init__(self, address: SplitResult, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._host = address.hostname or ""
        self._port = address.port or (443 if self._tls else 80)
        self._idle: list[_EngineConnection] = []
        self._closed = False

    def take_idle(self) -> _EngineConnection | None:
        now_s = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now_s):
                return connection
            connection.abort()
        return None

    async def connect(self) -> _EngineConnection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, made = await self._loop.create_connection(
                    lambda: _EngineConnection(self, self._loop), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise EngineUnreachableError(f"{self._host}:{self._port}: {error or type(error).__name__}") from error
        return made

    def keep(self, connection: _EngineConnection) -> None:
        connection.idle_since_s = self._loop.time()
        self._idle.append(connection)
        if self._closed:
            connection.abort()

    def forget(self, connection: _EngineConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle, and what is in use when it ends."""
        self._closed = True
        for connection in tuple(self._idle):
            connection.abort()


class EngineClient:
    """Connections to every engine of this process. `headers` go out with each request, such as an upstream's key."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._pools: dict[str, _Pool] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())

    async def post(
        self, url: str, path: str, body: bytes, *, request_id: str, account: str, traceparent: str | None = None
    ) -> EngineAnswer:
        """Send a JSON body to `url` + `path`; return before the answer. Raises: EngineUnreachableError.

        `account` is who the engine's witness writes the tokens down for.
        """
        pool = self._pools.get(url) or self._open(url)
        prefix, host = self._addresses[url]
        traced = "" if traceparent is None else f"traceparent: {traceparent}\r\n"
        head = (
            f"POST {prefix}{path} HTTP/1.1\r\nhost: {host}\r\n{self._fixed}content-type: application/json\r\n"
            f"{traced}x-request-id: {request_id}\r\nx-guanmo-account: {account}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        connection = pool.take_idle() or await pool.connect()
        return connection.send(head.encode("latin-1") + body)

    def keep_only(self, urls: Collection[str]) -> None:
        """Let go of engines that are no longer there: each start of an engine has an address of its own."""
        for url in self._pools.keys() - set(urls):
            self._pools.pop(url).close()
            del self._addresses[url]

    def close(self) -> None:
        """Close what is idle."""
        self.keep_only(())

    def _open(self, url: str) -> _Pool:
        address = urlsplit(url)
        self._addresses[url] = (address.path.rstrip("/"), address.netloc)
        pool = self._pools[url] = _Pool(address, asyncio.get_running_loop())
        return pool
