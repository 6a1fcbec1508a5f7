"""Many clients at once against gateways, each on its own connection; it knows nothing of engines and hub."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

MESSAGES = [{"role": "user", "content": "hello"}]
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


@dataclass
class Outcome:
    """What one client saw. `tokens` are words delivered; `status` 0 when no answer began."""

    status: int = 0
    request_id: str = ""
    code: str = ""
    tokens: int = 0
    text: str = ""
    whole: bool = False
    left: bool = False
    greedy: bool = False
    took_s: float = 0.0
    first_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


async def call(
    url: str,
    key: str,
    *,
    stream: bool = True,
    headers: Mapping[str, str] | None = None,
    leave_after: int | None = None,
    **body: Any,
) -> Outcome:
    """Ask once on a connection of its own; hang up after `leave_after` words if given."""
    loop, seen = asyncio.get_running_loop(), Outcome(greedy=body.get("temperature") == 0)
    began_s = loop.time()
    sent = {"model": "org/base", "messages": MESSAGES, "stream": stream} | body
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
            more = {"authorization": f"Bearer {key}"} | dict(headers or {})
            async with session.post(f"{url}/v1/chat/completions", json=sent, headers=more) as answer:
                seen.status, seen.headers = answer.status, dict(answer.headers)
                seen.request_id = answer.headers.get("x-request-id", "")
                await _read(answer, seen, stream=stream, leave_after=leave_after, began_s=began_s)
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        seen.whole = False
    seen.took_s = loop.time() - began_s
    return seen


async def _read(
    answer: aiohttp.ClientResponse, seen: Outcome, *, stream: bool, leave_after: int | None, began_s: float
) -> None:
    if answer.status != 200 or not stream:
        whole = json.loads(await answer.read())
        seen.code = whole.get("error", {}).get("code", "")
        seen.whole = answer.status == 200
        seen.tokens = whole.get("usage", {}).get("completion_tokens", 0)
        return
    async for line in answer.content:
        if line.startswith(b"data: [DONE]"):
            seen.whole = True
        elif line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            seen.code = chunk.get("error", {}).get("code", seen.code)
            said = [choice for choice in chunk.get("choices", ()) if choice["delta"].get("content")]
            if said and not seen.tokens:
                seen.first_s = asyncio.get_running_loop().time() - began_s
            seen.tokens += len(said)
            seen.text += "".join(choice["delta"]["content"] for choice in said)
            if leave_after is not None and seen.tokens >= leave_after:
                seen.left = True
                return


def run_crowd(count: int, one: Callable[[int], Any]) -> list[Outcome]:
    """Run `count` clients at once and return what each saw."""

    async def all_of_them() -> list[Outcome]:
        return list(await asyncio.gather(*(one(number) for number in range(count))))

    return asyncio.run(all_of_them())
