"""A fake engine that costs next to nothing: fixed delays, fixed answers, running usage on every chunk as vLLM sends it.

    python -m benchmarks.gateway.upstream PORT

A request of one token is answered at once. It counts no tokens and checks nothing; what is measured stands before it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import httptools
import uvloop

FIRST_MS = 20
BETWEEN_MS = 10
TOKENS = 32
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


class EngineProtocol(asyncio.Protocol):
    """One connection; it answers a request after 20 ms, or streams 32 tokens 10 ms apart."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Start a request."""
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer later."""
        stream = b'"stream": true' in self._body or b'"stream":true' in self._body
        body = json.loads(self._body)
        model = body.get("model", "base")
        if body.get("max_tokens") == 1:
            self._write(write_answer(model))
        elif stream:
            self._loop.call_later(FIRST_MS / 1000, self._stream, write_stream(model), 0)
        else:
            self._loop.call_later(FIRST_MS / 1000, self._write, write_answer(model))

    def _stream(self, pieces: list[bytes], number: int) -> None:
        self._write((_STREAM_HEAD if number == 0 else b"") + pieces[number])
        if number + 1 < len(pieces):
            self._loop.call_later(BETWEEN_MS / 1000, self._stream, pieces, number + 1)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def write_answer(model: str) -> bytes:
    """Return a whole HTTP answer of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * TOKENS}, "finish_reason": "stop"}
    body = json.dumps(_frame(model, "chat.completion", [choice], TOKENS), separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_WRITTEN: dict[str, list[bytes]] = {}


def write_stream(model: str) -> list[bytes]:
    """Return the chunks of a streamed chat completion; the last piece ends the answer."""
    if model in _WRITTEN:
        return _WRITTEN[model]
    chunks = []
    for count in range(1, TOKENS + 1):
        delta = {"role": "assistant", "content": "word "} if count == 1 else {"content": "word "}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": "stop" if count == TOKENS else None}
        chunks.append(_frame(model, "chat.completion.chunk", [choice], count))
    chunks.append(_frame(model, "chat.completion.chunk", [], TOKENS))
    pieces = [_chunked(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n") for chunk in chunks]
    pieces[-1] += _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return _WRITTEN.setdefault(model, pieces)


def _chunked(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def _frame(model: str, kind: str, choices: list[dict[str, Any]], completion_tokens: int) -> dict[str, Any]:
    usage = {
        "prompt_tokens": 24,
        "total_tokens": 24 + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    identity = {"id": "chatcmpl-0123456789abcdef", "object": kind, "created": 1_700_000_000, "model": model}
    return identity | {"choices": choices, "usage": usage}


async def serve(port: int) -> None:
    """Listen on loopback for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EngineProtocol(loop), "127.0.0.1", port, backlog=2048)
    for listener in server.sockets:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
