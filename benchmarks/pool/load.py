"""Keeps so many completions under way for a while and counts generated tokens; what to ask is the caller's."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import aiohttp

MAX_TOKENS = 32
PROMPT_TOKENS = 48
Draw = Callable[[], int]


@dataclass(frozen=True)
class Ask:
    """Where the next call goes and by which name; `key` for a gateway, `instruction` comes before the call's tokens."""

    url: str
    model: str
    key: str = ""
    instruction: tuple[int, ...] = ()


@dataclass
class Taken:
    """What one measurement saw."""

    tokens: int = 0
    errors: int = 0
    seconds: float = 0.0
    call_s: list[float] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.seconds

    @property
    def median_s(self) -> float:
        """Median seconds of a whole call."""
        return statistics.median(self.call_s) if self.call_s else float("nan")


async def measure(choose: Callable[[int], Ask], *, at_once: int, seconds: float) -> Taken:
    """Ask for `seconds` with `at_once` calls under way and wait for the last; the rate is of the whole time.

    Calls of one length end in waves: counting those that end within a fixed time counts whole waves only.
    """
    taken, numbers = Taken(), count()
    started = time.monotonic()
    until = started + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def keep_asking() -> None:
            while time.monotonic() < until:
                began = time.monotonic()
                tokens = await _ask(http, choose(next(numbers)))
                taken.tokens += tokens
                taken.errors += tokens == 0
                taken.call_s.append(time.monotonic() - began)

        await asyncio.gather(*[keep_asking() for _ in range(at_once)])
    taken.seconds = time.monotonic() - started
    return taken


def draw_zipf(amount: int, *, seed: int, exponent: float = 1.0) -> Draw:
    """Return a drawer of 0 to amount-1, where place k has weight 1/k."""
    rng = random.Random(seed)
    weights = [1 / place**exponent for place in range(1, amount + 1)]
    return lambda: rng.choices(range(amount), weights)[0]


def draw_tokens(rng: random.Random, amount: int) -> list[int]:
    """Return so many token ids that the bench's base knows and that stop nothing."""
    return [rng.randrange(3, 256) for _ in range(amount)]


async def _ask(http: aiohttp.ClientSession, ask: Ask) -> int:
    prompt = [*ask.instruction, *draw_tokens(random.Random(), PROMPT_TOKENS)]
    body = {"model": ask.model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0, "ignore_eos": True}
    headers = {"authorization": f"Bearer {ask.key}"} if ask.key else {}
    async with http.post(f"{ask.url}/v1/completions", json=body, headers=headers) as answer:
        if answer.status != 200:
            print(f"{ask.model}: {answer.status} {await answer.text():.300}", flush=True)
            return 0
        return int((await answer.json())["usage"]["completion_tokens"])
