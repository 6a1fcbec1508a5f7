"""One HTTP request and its answer, apart from how bytes travel.

The connection hands in the body and takes out the answer; what to answer is decided by the callers.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote

from serving.gateway.body_budget import BodyBudget
from serving.gateway.errors import GatewayError, Limit

Headers = Iterable[tuple[str, str]]

READ_TIMEOUT_S = 60.0
# More of a body than this waits in the socket until it is read here.
BODY_AHEAD_BYTES = 256 * 1024
MAX_TAPE_BYTES = 4 * 1024 * 1024
EVENT_STREAM = "text/event-stream; charset=utf-8"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class ClientGoneError(Exception):
    """The client closed the connection, or has not read for 60 s."""


class Tape:
    """What an answer said, handed to `keep` for whoever asks the same again; `complete` once it ended without an error.

    `keep` is called before the last bytes go out.
    """

    def __init__(self, keep: Callable[[Tape], None]) -> None:
        self._keep = keep
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.complete = False

    @property
    def overflowed(self) -> bool:
        """Return whether the answer was too large to keep."""
        return self.size_bytes > MAX_TAPE_BYTES

    def take(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.size_bytes += len(piece)
        self.pieces.append(piece)
        if self.overflowed:
            self.pieces.clear()

    def end(self) -> None:
        """Note that the answer is whole."""
        self._keep(self)
        self.complete = True


class Wire(Protocol):
    """What an exchange needs of its connection."""

    client_ip: str
    writable: bool

    def write(self, data: bytes) -> None:
        """Send bytes; dropped when the client is gone."""

    def flow(self, exchange: Exchange, *, reading: bool) -> None:
        """Let the body of this exchange come, or not."""

    def finish(self, exchange: Exchange) -> None:
        """The answer is complete."""


class Exchange:
    """Request side: method, path, headers, body. Answer side: start, send, end."""

    def __init__(self, wire: Wire) -> None:
        self.request_id = f"req_{os.urandom(16).hex()}"
        self.method = ""
        self.path = ""
        self.raw_path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        self.client_ip = wire.client_ip
        self.one_dot_zero = False
        self.keep_alive = True
        self.started = False
        self.ended = False
        self.streams_events = False
        self.anthropic = False
        self.body_complete = False
        self.gone = False
        self.tape: Tape | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_writable: Callable[[bool], None] | None = None
        self._wire = wire
        self._chunked = False
        self._body: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def aim(self, method: str, target: bytes) -> None:
        """Take the request line."""
        self.method = method
        raw, _, query = target.decode("latin-1").partition("?")
        self.raw_path, self.query = raw, query
        self.path = unquote(raw) if "%" in raw else raw

    def body_arrived(self, chunk: bytes) -> None:
        """Take a piece of the body from the connection."""
        self._body.append(chunk)
        self._ahead_bytes += len(chunk)
        if self._ahead_bytes > BODY_AHEAD_BYTES:
            self._wire.flow(self, reading=False)
        _wake(self._arrived)

    def body_ended(self) -> None:
        """Note that the body is complete."""
        self.body_complete = True
        _wake(self._arrived)

    def client_left(self) -> None:
        """Note that nobody reads the answer any more."""
        if not self.gone:
            self.gone = True
            _wake(self._arrived)
            _wake(self._drained)
            if self.on_writable is not None and self.tape is not None:
                self.on_writable(True)  # what is kept for a client that asks again need not wait for this one
            if self.on_gone is not None:
                self.on_gone()

    def flow_changed(self, writable: bool) -> None:
        """Note that the client began or stopped being slow."""
        if writable:
            _wake(self._drained)
        if self.on_writable is not None:
            self.on_writable(writable)

    async def body_chunks(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body. Raises: GatewayError 413 above the limit, ClientGoneError."""
        declared = self.headers.get("content-length", "0")
        _check_size(int(declared) if declared.isdigit() else 0, limit_bytes)
        if self.headers.get("expect", "").lower() == "100-continue" and not self.body_complete:
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = 0
        while True:
            while self._body:
                chunk = self._body.popleft()
                self._ahead_bytes -= len(chunk)
                size += len(chunk)
                _check_size(size, limit_bytes)
                yield chunk
            if self.body_complete:
                return
            await self._next_piece()

    async def read_body(self, limit_bytes: int, budget: BodyBudget) -> bytes:
        """Return the whole body, counted in `budget`, where the caller gives it back.

        Raises: GatewayError 413 above the limit, 503 above the budget, 408 when it takes 60 s, ClientGoneError.
        """
        if self.body_complete and len(self._body) == 1 and self._ahead_bytes <= limit_bytes:
            budget.take(self._ahead_bytes)
            return self._body.popleft()
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                async for chunk in self.body_chunks(limit_bytes):
                    budget.take(len(chunk))
                    pieces.append(chunk)
            return b"".join(pieces)
        except BaseException as error:
            budget.give_back(sum(map(len, pieces)))
            if not isinstance(error, TimeoutError):
                raise
            text = f"the body did not arrive within {READ_TIMEOUT_S:.0f} s; send it at once"
            limit = Limit("body_s", READ_TIMEOUT_S, "gateway", READ_TIMEOUT_S)
            raise GatewayError(408, "body_too_slow", text, limit=limit) from error

    def start(self, status: int, headers: Headers) -> None:
        """Send status and headers, the request id included."""
        fields = list(headers)
        if self.tape is not None:
            self.tape.status, self.tape.headers = status, fields
        self._wire.write(self._head(status, fields))

    def send(self, chunk: bytes) -> None:
        """Send a piece of the body at once; the connection buffers what the client does not read yet."""
        if self.tape is not None:
            self.tape.take(chunk)
        if chunk:
            self._wire.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    async def drained(self) -> None:
        """Wait while the client is slow. Raises: ClientGoneError."""
        while not self._wire.writable and not self.gone:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if self.gone:
            raise ClientGoneError

    def end(self, last: bytes = b"") -> None:
        """Finish the body, with a last piece."""
        self._record_end(last)
        if self._chunked:
            self._wire.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n")
        elif last:
            self._wire.write(last)
        self.ended = True
        self._wire.finish(self)

    def answer(self, status: int, body: bytes, *, headers: Headers = ()) -> None:
        """Send a whole JSON answer."""
        fields = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
        if self.tape is not None:
            self.tape.status, self.tape.headers = status, fields
        self._record_end(body)
        self._wire.write(self._head(status, fields) + body)
        self.ended = True
        self._wire.finish(self)

    def fail(self, error: GatewayError) -> None:
        """Send an error: as an answer, or as the last event of a stream that has begun."""
        self.tape = None
        envelope = (error.anthropic_envelope if self.anthropic else error.envelope)(self.request_id)
        if not self.started:
            # On a new connection a retry may reach another process of this port, which has what this one lacks.
            self.keep_alive = self.keep_alive and error.status != 503
            self.answer(error.status, envelope, headers=error.headers())
        elif self.streams_events:
            self.end((b"event: error\n" if self.anthropic else b"") + b"data: " + envelope + b"\n\n")

    @property
    def slow(self) -> bool:
        """Return whether the client has to catch up."""
        return not self._wire.writable

    def _record_end(self, last: bytes) -> None:
        if self.tape is not None:
            self.tape.take(last)
            self.tape.end()

    def _head(self, status: int, headers: Headers) -> bytes:
        self.started = True
        # What was not read of the body must not be taken for the next request.
        self.keep_alive = self.keep_alive and self.body_complete
        lines, sized = [_STATUS_LINES[status]], False
        for name, value in headers:
            sized = sized or name == "content-length"
            self.streams_events = self.streams_events or value == EVENT_STREAM
            lines.append(f"{name}: {value}\r\n")
        if not sized:
            self._chunked = not self.one_dot_zero
            self.keep_alive = self.keep_alive and self._chunked
            lines.append("transfer-encoding: chunked\r\n" if self._chunked else "")
        closing = "" if self.keep_alive else "connection: close\r\n"
        lines.append(f"x-request-id: {self.request_id}\r\n{closing}\r\n")
        return "".join(lines).encode("latin-1")

    async def _next_piece(self) -> None:
        if self.gone:
            raise ClientGoneError
        self._wire.flow(self, reading=True)
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived
        if self.gone:
            raise ClientGoneError


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        text = f"the body of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes; send less"
        raise GatewayError(413, "body_too_large", text, limit=Limit("body_bytes", limit_bytes, "gateway", size_bytes))
