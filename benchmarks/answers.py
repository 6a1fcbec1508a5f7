"""Times answers of one adapter through the gateway and straight from its vLLM replica, taking turns.

It leaves starting and finding both to the caller.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from examples.tasks.work_orders import generate_rows

FIRST_TOKENS = 8
THROUGHPUT_TOKENS = 48
WARM_UP = 4


@dataclass(frozen=True)
class Door:
    """One way to the same adapter; `url` ends in /v1."""

    name: str
    url: str
    model: str
    key: str


def measure_first_token(doors: list[Door], *, times: int) -> dict[str, list[float]]:
    """Return milliseconds until the first piece of text, by door; each question is asked once, doors in turn."""
    questions = write_questions()
    took_ms: dict[str, list[float]] = {door.name: [] for door in doors}
    with httpx.Client(timeout=60) as client:
        for number in range(WARM_UP + times):
            # Who goes first alternates, so that neither always finds the machine as the other left it.
            for door in doors if number % 2 else reversed(doors):
                value_ms = _time_first_token(client, door, next(questions))
                if number >= WARM_UP:
                    took_ms[door.name].append(value_ms)
    return took_ms


def measure_throughput(doors: list[Door], *, calls: int, at_once: int) -> dict[str, float]:
    """Return generated tokens a second, by door, with `at_once` calls under way."""
    questions = write_questions()
    rates = {}
    for door in doors:
        asked = [next(questions) for _ in range(calls)]
        with httpx.Client(timeout=120) as client, ThreadPoolExecutor(at_once) as threads:
            began = time.perf_counter()
            counts = list(threads.map(lambda text, door=door, client=client: _count_tokens(client, door, text), asked))
            rates[door.name] = sum(counts) / (time.perf_counter() - began)
    return rates


def write_questions() -> Iterator[str]:
    """Yield questions of the example task, none twice: a repeated one would be answered from the prefix cache."""
    for row in generate_rows(seed=20261121, train_rows=2000, valid_rows=200):
        yield row.question


def _time_first_token(client: httpx.Client, door: Door, question: str) -> float:
    began = time.perf_counter()
    first_ms: float | None = None
    with client.stream(
        "POST", f"{door.url}/chat/completions", **_request(door, question, FIRST_TOKENS, True)
    ) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if first_ms is None and _holds_text(line):
                first_ms = (time.perf_counter() - began) * 1000
    if first_ms is None:
        raise httpx.RemoteProtocolError(f"{door.name} streamed no text for: {question}")
    return first_ms


def _holds_text(line: str) -> bool:
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))


def _count_tokens(client: httpx.Client, door: Door, question: str) -> int:
    answer = client.post(f"{door.url}/chat/completions", **_request(door, question, THROUGHPUT_TOKENS, False))
    return int(answer.raise_for_status().json()["usage"]["completion_tokens"])


def _request(door: Door, question: str, max_tokens: int, stream: bool) -> dict[str, Any]:
    body = {
        "model": door.model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": stream,
    }
    return {"json": body, "headers": {"Authorization": f"Bearer {door.key}"}}
