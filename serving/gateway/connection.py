"""One client connection: HTTP/1.1 parsed by httptools straight on the transport, every part of it bounded.

Answering is left to the callable that it starts for each request, listening to `http_server`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from serving.gateway.errors import GatewayError, Limit, unavailable
from serving.gateway.exchange import Exchange

MAX_CONNECTIONS = 16_384
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 16
HEAD_TIMEOUT_S = 20.0
BODY_TIMEOUT_S = 60.0
IDLE_TIMEOUT_S = 75.0
WRITE_TIMEOUT_S = 60.0
LINGER_S = 5.0
_FULL_S = 5
# The client is slow above this many unsent bytes.
WRITE_AHEAD_BYTES = 256 * 1024

Serve = Callable[[Exchange], Awaitable[None]]


class ClientConnection(asyncio.Protocol):
    """Requests of one connection, answered in order; `connections` is the set that it enters and leaves."""

    def __init__(
        self, serve: Serve, connections: set[ClientConnection], loop: asyncio.AbstractEventLoop, *, full: bool
    ) -> None:
        self.client_ip = ""
        self.writable = True
        self._serve = serve
        self._connections = connections
        self._loop = loop
        self._full = full
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._header_count = 0
        self._target = b""
        self._incoming: Exchange | None = None
        self._current: Exchange | None = None
        self._queued: deque[Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._lingering = False
        self._due_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or refuse it when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        peer = transport.get_extra_info("peername")
        self.client_ip = peer[0] if peer else ""
        self._connections.add(self)
        self._due_s = self._loop.time() + HEAD_TIMEOUT_S
        if self._full:
            text = f"this gateway has the {MAX_CONNECTIONS} connections that it may have; retry in {_FULL_S} s"
            limit = Limit("connections", MAX_CONNECTIONS, "gateway", MAX_CONNECTIONS)
            self._refuse(unavailable("too_many_connections", text, retry_after_s=_FULL_S, limit=limit))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell every request of this connection that its client is gone."""
        self._connections.discard(self)
        self._due_s = None
        self.writable = True  # nobody is slow any more: what runs on for a client that asks again is not held up
        for exchange in (self._current, self._incoming, *self._queued):
            if exchange is not None:
                exchange.client_left()
        self._queued.clear()

    def data_received(self, data: bytes) -> None:
        """Parse; a client that does not speak HTTP is told and left."""
        if self._lingering or self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = True  # whatever protocol was asked for, it gets the answer of an ordinary request
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooManyHeadersError):
                self._refuse(_head_too_large("headers", MAX_HEADERS, self._header_count))
            else:
                text = "this is no valid HTTP/1.1 request; use an ordinary client"
                self._refuse(GatewayError(400, "invalid_http", text))
            return
        if self._incoming is not None and not self._incoming.method:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large("head_bytes", MAX_HEAD_BYTES, self._head_bytes))

    def pause_writing(self) -> None:
        """The client does not read as fast as the answer comes."""
        self.writable = False
        self._due_s = self._loop.time() + WRITE_TIMEOUT_S
        if self._current is not None:
            self._current.flow_changed(False)

    def resume_writing(self) -> None:
        """The client caught up."""
        self.writable = True
        self._due_s = None if self._current is not None else self._loop.time() + IDLE_TIMEOUT_S
        if self._current is not None:
            self._current.flow_changed(True)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._incoming = Exchange(self)
        self._target = b""
        self._header_count = 0
        self._expect(HEAD_TIMEOUT_S)

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a repeated one becomes a list, as RFC 9110 has it."""
        if self._incoming is None:
            return
        headers = self._incoming.headers
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            raise _TooManyHeadersError

    def on_headers_complete(self) -> None:
        """Start answering, or queue behind the request before."""
        exchange = self._incoming
        if exchange is None:
            return
        exchange.aim(self._parser.get_method().decode("latin-1"), self._target)
        exchange.one_dot_zero = self._parser.get_http_version() == "1.0"
        exchange.keep_alive = bool(self._parser.should_keep_alive())
        self._head_bytes = 0
        self._expect(None)
        if self._current is None:
            self._begin(exchange)
        elif len(self._queued) < MAX_PIPELINED:
            self._queued.append(exchange)
            self._transport.pause_reading()
        else:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        if self._incoming is not None:
            if self._due_s is not None:
                self._expect(BODY_TIMEOUT_S)
            self._incoming.body_arrived(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self._incoming is not None:
            self._expect(None)
            self._incoming.body_ended()
            self._incoming = None
            self._listen()

    def write(self, data: bytes) -> None:
        """Send bytes; dropped when the client is gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def flow(self, exchange: Exchange, *, reading: bool) -> None:
        """Let the body of the request come, or not."""
        if exchange is not self._incoming or self._transport.is_closing():
            return
        if reading:
            self._due_s = self._loop.time() + BODY_TIMEOUT_S
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def finish(self, exchange: Exchange) -> None:
        """Go on to the next request, or close once the client has everything."""
        if exchange is not self._current:
            return
        self._current = None
        if not exchange.keep_alive or self._closing:
            self._close(clean=exchange.body_complete)
        elif self._queued:
            self._begin(self._queued.popleft())
            self._listen()
        else:
            self._expect(IDLE_TIMEOUT_S)
            self._transport.resume_reading()

    def wind_down(self) -> None:
        """Close now when idle, else after the answer under way."""
        self._closing = True
        if self._current is None:
            self._transport.close()

    def cut(self) -> None:
        """Close at once."""
        self._transport.abort()

    def expire(self, now_s: float) -> None:
        """Close a connection that keeps us waiting: idle, slow headers, or an answer that it does not read."""
        if self._due_s is not None and now_s >= self._due_s:
            self._transport.abort()

    def _expect(self, within_s: float | None) -> None:
        """Set until when something must come, or nothing need; the time of a client that does not read stays."""
        if self.writable:
            self._due_s = None if within_s is None else self._loop.time() + within_s

    def _listen(self) -> None:
        """Read on, though the body is whole: a client that leaves is only seen so. Who pipelines waits its turn."""
        if not self._queued and not self._transport.is_closing():
            self._transport.resume_reading()

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self._task = self._loop.create_task(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        await self._serve(exchange)
        if not exchange.ended:
            self._transport.abort()

    def _refuse(self, error: GatewayError) -> None:
        if self._current is not None:
            self._transport.abort()
            return
        exchange = Exchange(self)
        exchange.keep_alive = False
        self._current = exchange
        exchange.fail(error)

    def _close(self, *, clean: bool) -> None:
        """Close; a client still sending gets 5 s to read the answer first, or a reset would eat it."""
        if clean:
            self._transport.close()
        else:
            self._lingering = True
            self._due_s = self._loop.time() + LINGER_S
            self._transport.resume_reading()


def _head_too_large(name: str, most: int, sent: int) -> GatewayError:
    text = f"the request's head has {sent} {name} and {most} may come; send fewer headers"
    return GatewayError(431, "headers_too_large", text, limit=Limit(name, most, "gateway", sent))


class _TooManyHeadersError(Exception):
    """Stops the parser."""
