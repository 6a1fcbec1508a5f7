"""Clients that ask greedily for an exact number of tokens and note every piece; which engine answers is not theirs."""

import asyncio
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.gateway.samples import secret_of

_TIMEOUT = aiohttp.ClientTimeout(total=180, sock_connect=10)
_REST_S = 0.2


@dataclass
class Stream:
    """What one client saw of one stream; times are monotonic seconds. `told_tokens` is the usage at its end."""

    prompt: str
    request_id: str = ""
    text: str = ""
    pieces: int = 0
    told_tokens: int = 0
    whole: bool = False
    left: bool = False
    error: str = ""
    gap_s: float = 0.0
    first_at_s: float = 0.0
    last_at_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0

    def ran_within(self, from_s: float, to_s: float) -> bool:
        """Whether it was under way at any moment of a time."""
        return self.began_s <= to_s and from_s <= self.ended_s


async def stream(url: str, prompt: str, *, tokens: int, leave_after: int = 0) -> Stream:
    """Ask for exactly `tokens` tokens; hang up after `leave_after` pieces if given."""
    seen = Stream(prompt)
    body = {"model": "org/base", "prompt": prompt, "stream": True, "temperature": 0, "max_tokens": tokens}
    body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {secret_of(1)}"}
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as http,
            http.post(f"{url}/v1/completions", json=body, headers=headers) as answer,
        ):
            seen.request_id = answer.headers.get("x-request-id", "")
            if answer.status != 200:
                seen.error = json.loads(await answer.read())["error"]["code"]
                return seen
            async for line in answer.content:
                if line.startswith(b"data: [DONE]"):
                    seen.whole = not seen.error
                elif line.startswith(b"data: "):
                    _take(seen, json.loads(line[6:]))
                if leave_after and seen.pieces >= leave_after:
                    seen.left = True
                    return seen
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        seen.error = seen.error or type(error).__name__
    finally:
        seen.ended_s = time.monotonic()
    if not seen.whole and not seen.error:
        seen.error = "cut"
    return seen


def _take(seen: Stream, chunk: dict[str, Any]) -> None:
    now_s = time.monotonic()
    seen.error = chunk.get("error", {}).get("code", seen.error)
    seen.told_tokens = (chunk.get("usage") or {}).get("completion_tokens", seen.told_tokens)
    for choice in chunk.get("choices", ()):
        seen.text += choice.get("text", "")
        seen.pieces += 1
    seen.gap_s = max(seen.gap_s, now_s - seen.last_at_s) if seen.last_at_s else 0.0
    seen.first_at_s, seen.last_at_s = seen.first_at_s or now_s, now_s


class Crowd:
    """Clients that ask one stream after another, each with a prompt of its own, until told to stop.

    `leaving` is how many of the next streams are left by their clients in the middle.
    """

    def __init__(self, url: str, *, clients: int, tokens: int, chance: random.Random) -> None:
        self.seen: list[Stream] = []
        self.leaving = 0
        self._url, self._clients, self._tokens = url, clients, tokens
        self._chance = chance
        self._numbers = itertools.count(chance.randrange(10**6))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Crowd":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(200)

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(self._clients)))

    async def _ask(self) -> None:
        while not self._stop.is_set():
            leave_after = 0
            if self.leaving:
                self.leaving, leave_after = self.leaving - 1, self._chance.randrange(1, self._tokens // 2)
            prompt = f"spindle {next(self._numbers)} bearing 主轴"
            self.seen.append(await stream(self._url, prompt, tokens=self._tokens, leave_after=leave_after))
            # Somebody else's death came first: the next one leaves.
            self.leaving += bool(leave_after) and not self.seen[-1].left
            if self.seen[-1].error:
                await asyncio.sleep(_REST_S)


def ask_again(url: str, prompts: list[str], *, tokens: int) -> dict[str, str]:
    """Return the text of each prompt, asked one after the other on engines that nobody disturbs."""

    async def ask() -> dict[str, str]:
        return {prompt: (await stream(url, prompt, tokens=tokens)).text for prompt in prompts}

    return asyncio.run(ask())
