"""One HTTP request and its answer over raw ASGI.

It knows sizes and disconnects; what to answer is decided by the callers.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from serving.gateway.errors import GatewayError

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

WRITE_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 60.0
EVENT_STREAM = "text/event-stream; charset=utf-8"


class ClientGoneError(Exception):
    """The client closed the connection, or has not read for 60 s."""


class Exchange:
    """Request side: method, path, headers, body. Answer side: start, write, end."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.request_id = f"req_{uuid.uuid4().hex}"
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.client_ip: str = scope["client"][0] if scope.get("client") else ""
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.started = False
        self.streams_events = False
        self._receive = receive
        self._send = send

    async def body_chunks(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body. Raises: GatewayError 413 above the limit, ClientGoneError."""
        declared = self.headers.get("content-length", "0")
        size, more = 0, True
        _check_size(int(declared) if declared.isdigit() else 0, limit_bytes)
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            _check_size(size, limit_bytes)
            if chunk:
                yield chunk

    async def read_body(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises: GatewayError 413 above the limit, 408 when it takes 60 s, ClientGoneError."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return b"".join([chunk async for chunk in self.body_chunks(limit_bytes)])
        except TimeoutError as error:
            text = f"the body did not arrive within {READ_TIMEOUT_S:.0f} s; send it at once"
            raise GatewayError(408, "body_too_slow", text) from error

    async def wait_disconnect(self) -> None:
        """Return when the client has closed the connection; the body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers, the request id included."""
        fields = [*headers, ("x-request-id", self.request_id)]
        self.started = True
        self.streams_events = ("content-type", EVENT_STREAM) in fields
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a piece of the body; waits while the client is slow. Raises: ClientGoneError after 60 s of waiting."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        except TimeoutError as error:
            raise ClientGoneError from error

    async def end(self) -> None:
        """Finish the body."""
        await self.write(b"", more=False)

    async def answer(self, status: int, body: bytes, *, headers: Headers = ()) -> None:
        """Send a whole JSON answer."""
        fields = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
        await self.start(status, fields)
        await self.write(body, more=False)

    async def fail(self, error: GatewayError) -> None:
        """Send an error: as an answer, or as the last event of a stream that has begun."""
        envelope = error.envelope(self.request_id)
        if not self.started:
            await self.answer(error.status, envelope, headers=error.headers())
        elif self.streams_events:
            await self.write(b"data: " + envelope + b"\n\n", more=False)


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        text = f"the body of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes; send less"
        raise GatewayError(413, "body_too_large", text)
