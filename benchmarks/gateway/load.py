"""A load client that costs little: C kept connections, each sending its next request when the last answer ended.

    python -m benchmarks.gateway.load '{"port": ..., "at_once": ..., "seconds": ...}'

It prints one JSON object; which server is asked and what the numbers mean is decided by the caller.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httptools
import uvloop

WARM_UP_S = 0.7


@dataclass
class Counts:
    """What one run saw within its window."""

    answers: int = 0
    events: int = 0
    errors: int = 0
    all_answers: int = 0
    all_events: int = 0
    took_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One connection that asks the same again and again."""

    def __init__(self, request: bytes, counts: Counts, window: tuple[float, float]) -> None:
        self._request = request
        self._counts = counts
        self._from_s, self._until_s = window
        self._transport: Any = None
        self._sent_s = 0.0
        self._first_s = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Count the events of a stream."""
        now_s = time.perf_counter()
        self._first_s = self._first_s or now_s
        # Events that carry generated text: the gateway hides an engine's usage from clients that did not ask for it.
        events = body.count(b'"choices":[{')
        self._counts.all_events += events
        if self._from_s <= now_s < self._until_s:
            self._counts.events += events
        self._tail = body[-32:]

    def on_message_complete(self) -> None:
        """Note the answer and ask again."""
        now_s = time.perf_counter()
        self._counts.all_answers += 1
        if self._from_s <= now_s < self._until_s:
            self._note(now_s)
        if now_s < self._until_s:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """Count a connection lost while asking."""
        if time.perf_counter() < self._until_s:
            self._counts.errors += 1

    def _note(self, now_s: float) -> None:
        ended = b"[DONE]" in self._tail or self._tail.endswith(b"}")
        if self._parser.get_status_code() != 200 or not ended or b'"error"' in self._tail:
            self._counts.errors += 1
            return
        self._counts.answers += 1
        self._counts.took_s.append(now_s - self._sent_s)
        self._counts.first_s.append(self._first_s - self._sent_s)

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._first_s, self._sent_s = 0.0, time.perf_counter()
        self._transport.write(self._request)


def write_request(*, model: str, key: str, stream: bool, max_tokens: int, usage: bool) -> bytes:
    """Return the bytes of one chat completion request."""
    text = "The spindle bearing of machine 7 runs hot after the change of oil; name three likely causes."
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "stream": stream,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    payload = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


async def run_load(*, port: int, at_once: int, seconds: float, request: bytes) -> dict[str, float]:
    """Return rates a second and latencies in ms of one run; the first 0.7 s are not counted."""
    counts, loop = Counts(), asyncio.get_running_loop()
    began_s = time.perf_counter() + WARM_UP_S
    window = (began_s, began_s + seconds)
    for _ in range(at_once):
        await loop.create_connection(lambda: Caller(request, counts, window), "127.0.0.1", port)
    await asyncio.sleep(began_s + seconds - time.perf_counter() + 0.05)
    return {
        "rps": counts.answers / seconds,
        "events_per_s": counts.events / seconds,
        "errors": counts.errors,
        "all_answers": counts.all_answers,
        "all_events": counts.all_events,
        "p50_ms": _percentile_ms(counts.took_s, 50),
        "p99_ms": _percentile_ms(counts.took_s, 99),
        "first_p50_ms": _percentile_ms(counts.first_s, 50),
        "client_cpu_share": time.process_time() / (seconds + WARM_UP_S),
    }


def _percentile_ms(values_s: list[float], percent: int) -> float:
    if len(values_s) < 2:
        return float("nan")
    return 1000 * statistics.quantiles(values_s, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    sent = write_request(**{name: asked.pop(name) for name in ("model", "key", "stream", "max_tokens", "usage")})
    print(json.dumps(uvloop.run(run_load(request=sent, **asked))))
