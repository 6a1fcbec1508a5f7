"""The same gateway behind other servers and engine clients, for the comparison in docs/adr/0017.

    python -m benchmarks.gateway.front_ends SERVER-CLIENT [options of serving.gateway]

SERVER is own, uvicorn, aiohttp or granian, CLIENT own or aiohttp. Only a bench may start it: the product has one of
each. granian is no requirement of ours; it is found where PYTHONPATH says.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web

from serving.gateway import __main__ as gateway
from serving.gateway import server
from serving.gateway.connection import Serve
from serving.gateway.engine_client import EngineLostError, EngineUnreachableError, Sink
from serving.gateway.exchange import Exchange, Headers

Piece = tuple[str, Any]


class QueuedExchange(Exchange):
    """Collects the answer in a queue, which the foreign server writes: ("start", ...), ("body", ...), ("end", b"")."""

    writable = True

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes, client_ip: str) -> None:
        self.client_ip = client_ip
        super().__init__(self)
        self.aim(method, target.encode())
        self.headers = headers
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self.body_arrived(body)
        self.body_ended()

    def start(self, status: int, headers: Headers) -> None:
        """Queue status and headers."""
        self.started = True
        fields = [*headers, ("x-request-id", self.request_id)]
        self.streams_events = any(value.startswith("text/event-stream") for _, value in fields)
        self.pieces.put_nowait(("start", (status, fields)))

    def send(self, chunk: bytes) -> None:
        """Queue a piece."""
        self.pieces.put_nowait(("body", chunk))

    def end(self, last: bytes = b"") -> None:
        """Queue the end."""
        self.ended = True
        self.pieces.put_nowait(("end", last))

    def answer(self, status: int, body: bytes, *, headers: Headers = ()) -> None:
        """Queue a whole answer."""
        self.start(status, [("content-type", "application/json"), ("content-length", str(len(body))), *headers])
        self.end(body)

    async def drained(self) -> None:
        """The foreign server has its own back-pressure; here the queue grows."""

    def write(self, data: bytes) -> None:
        """Nothing is written past the queue."""

    def flow(self, exchange: Exchange, *, reading: bool) -> None:
        """The body is here already."""

    def finish(self, exchange: Exchange) -> None:
        """The foreign server finishes."""

    async def run(self, serve: Serve) -> AsyncIterator[Piece]:
        """Serve in a task and yield the pieces."""
        task = asyncio.create_task(serve(self))
        while True:
            piece = await self.pieces.get()
            yield piece
            if piece[0] == "end":
                await task
                return


class ForeignServer:
    """Takes the place of `HttpServer`; subclasses start a server on the bound socket."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._running: Any = None

    async def wind_down(self, grace_s: float, hurry: asyncio.Event) -> None:
        """The bench is over."""


class UvicornServer(ForeignServer):
    """Raw ASGI on uvicorn with httptools and uvloop."""

    async def listen(self, listener: socket.socket) -> None:
        """Serve in a task."""
        config = uvicorn.Config(
            self._app, lifespan="off", ws="none", interface="asgi3", log_config=None, access_log=False
        )
        listener.listen(2048)
        uvicorn_server = uvicorn.Server(config)
        self._running = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        exchange = QueuedExchange(scope["method"], scope["path"], headers, body, scope["client"][0])
        async for kind, value in exchange.run(self._serve):
            if kind == "start":
                raw = [(name.encode(), text.encode()) for name, text in value[1]]
                await send({"type": "http.response.start", "status": value[0], "headers": raw})
            else:
                await send({"type": "http.response.body", "body": value, "more_body": kind != "end"})


class AiohttpServer(ForeignServer):
    """aiohttp's own server."""

    async def listen(self, listener: socket.socket) -> None:
        """Serve on the runner."""
        self._running = web.ServerRunner(web.Server(self._handle))
        await self._running.setup()
        await web.SockSite(self._running, listener, backlog=2048).start()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        exchange = QueuedExchange(
            request.method, request.path_qs, headers, await request.read(), request.remote or "127.0.0.1"
        )
        response = web.StreamResponse()
        async for kind, value in exchange.run(self._serve):
            if kind == "start":
                response = web.StreamResponse(status=value[0], headers=dict(value[1]))
                await response.prepare(request)
            elif value:
                await response.write(value)
        await response.write_eof()
        return response


class GranianServer(ForeignServer):
    """granian's RSGI, embedded in our loop."""

    async def listen(self, listener: socket.socket) -> None:
        """Serve in a task; granian binds by itself."""
        from granian.constants import Interfaces
        from granian.server.embed import Server

        host, port = listener.getsockname()[:2]
        listener.close()
        embedded = Server(self._app, address=host, port=port, interface=Interfaces.RSGI)
        self._running = asyncio.create_task(embedded.serve())

    async def _app(self, scope: Any, protocol: Any) -> None:
        headers = dict(scope.headers.items())
        exchange = QueuedExchange(scope.method, scope.path, headers, await protocol(), "127.0.0.1")
        head, stream = (200, []), None
        async for kind, value in exchange.run(self._serve):
            if kind == "start":
                head = value
                if exchange.streams_events:
                    stream = protocol.response_stream(*head)
            elif stream is not None and value:
                await stream.send_bytes(value)
            elif stream is None:
                protocol.response_bytes(head[0], head[1], value)


class AiohttpAnswer:
    """`EngineAnswer` on an aiohttp response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.last_byte_s = asyncio.get_running_loop().time()
        self._response = response

    async def head(self) -> None:
        """The head is here."""

    async def read(self) -> bytes:
        """Return the body."""
        return await self._response.read()

    async def pipe(self, sink: Sink) -> None:
        """Hand on each piece."""
        try:
            async for piece in self._response.content.iter_any():
                self.last_byte_s = asyncio.get_running_loop().time()
                sink(piece)
        except aiohttp.ClientError as error:
            raise EngineLostError(str(error)) from error

    def flow(self, reading: bool) -> None:
        """Nothing: aiohttp pauses by itself."""

    def take_end(self, error: EngineLostError | None) -> None:
        """Break off."""
        self._response.close()

    def close(self) -> None:
        """Give the connection back."""
        self._response.release()


class AiohttpEngines:
    """`EngineClient` on an aiohttp session."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, path: str, body: bytes, *, request_id: str) -> AiohttpAnswer:
        """Send and wait for the head."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=2048, keepalive_timeout=3.0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": request_id}
        try:
            return AiohttpAnswer(await self._session.post(url + path, data=body, headers=headers))
        except aiohttp.ClientConnectorError as error:
            raise EngineUnreachableError(str(error)) from error

    def close(self) -> None:
        """The process ends."""


SERVERS: dict[str, Any] = {"uvicorn": UvicornServer, "aiohttp": AiohttpServer, "granian": GranianServer}

if __name__ == "__main__":
    chosen, _, client = sys.argv[1].partition("-")
    if chosen != "own":
        server.HttpServer = SERVERS[chosen]  # type: ignore[misc]
    if client != "own":
        server.EngineClient = AiohttpEngines  # type: ignore[misc, assignment]
    raise SystemExit(gateway.main(sys.argv[2:]))
