"""Gateways killed and clients gone at random times under load: every token that an engine made is accounted for."""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from serving.contract import cost_ufen
from tests.faults_serving.conftest import Say
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.samples import PRICES, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

CALLERS = 10
PROCESSES = 3
TOKEN_S = 0.01
TOKENS = 60
SNAPSHOT = make_snapshot(keys=(make_key(1),), models=(make_model("org/base"),))


@dataclass
class Story:
    """What happened: how often a gateway was killed and a client hung up, and what the clients saw."""

    gateway_kills: int = 0
    client_kills: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    over: bool = False


def test_every_token_is_accounted_for(tmp_path: Path, say: Say, long: bool, chance: random.Random) -> None:
    wanted = 86 if long else 3
    story = Story()
    with running_world(SNAPSHOT, tmp_path, engines=2) as world:
        start_ufen = world.hub.balance_ufen
        for engine in world.engines:
            engine.tokens, engine.delay_s = TOKENS, TOKEN_S
        with running_gateway(world, processes=PROCESSES) as gateway:
            killer = threading.Thread(target=kill_gateways, args=(gateway, story, wanted, chance))
            killer.start()
            call_until_over(gateway, story, wanted, seed=chance.random())
            killer.join()
            wait_for(lambda: gateway.log_path.read_text().count("on http://") >= PROCESSES + wanted, timeout_s=60)
            wait_for(lambda: has_all(world), timeout_s=30)
            assert gateway.stop() == 0
        spent_ufen = start_ufen - world.hub.balance_ufen
        figures = reckon(world, story)
        say(gateway_kills=story.gateway_kills, client_kills=story.client_kills, calls=len(story.outcomes), **figures)
        assert story.gateway_kills == wanted
        assert story.client_kills >= wanted
        assert (figures["duplicates"], figures["unexplained"], figures["over_billed"]) == (0, 0, 0)
        assert spent_ufen == sum(
            cost_ufen(PRICES, record.prompt_tokens, record.cached_tokens, record.completion_tokens)
            for record in world.hub.usage.values()
        )
        assert world.hub.closed.keys() == world.hub.allowances.keys()
        assert figures["delivered_unbilled"] == 0
        assert figures["whole_unbilled"] == 0


def kill_gateways(gateway: Gateway, story: Story, wanted: int, chance: random.Random) -> None:
    """Kill one serving process after another, at random times, once as many as should are there."""
    for number in range(1, wanted + 1):
        wait_for(lambda: len(gateway.workers()) == PROCESSES, timeout_s=30)
        time.sleep(chance.uniform(0.1, 1.2))
        os.kill(chance.choice(gateway.workers()), signal.SIGKILL)
        story.gateway_kills = number
        wait_for(
            lambda: gateway.log_path.read_text().count("on http://") >= PROCESSES + story.gateway_kills, timeout_s=60
        )
    story.over = True


def call_until_over(gateway: Gateway, story: Story, wanted: int, *, seed: float) -> None:
    """Keep callers busy; about every third hangs up after a random number of words."""

    async def caller(number: int) -> Outcome:
        chance, outcome = random.Random(seed + number), Outcome()
        while not story.over or story.client_kills < wanted:
            leaves = chance.randrange(1, TOKENS) if chance.random() < 0.35 else None
            outcome = await call(
                gateway.url, secret_of(1), leave_after=leaves, stream=leaves is not None or chance.random() < 0.8
            )
            story.client_kills += leaves is not None and outcome.tokens >= leaves
            story.outcomes.append(outcome)
            if outcome.status == 0:
                await asyncio.sleep(0.1)
        return outcome

    run_crowd(CALLERS, caller)


def has_all(world: World) -> bool:
    """Return whether the hub has a record of everything that an engine was asked."""
    return asked_of(world).keys() <= {f"{request_id}-{attempt}" for request_id, attempt in world.hub.usage}


def asked_of(world: World) -> Counter[str]:
    """Return the tokens that the engines made, by request and attempt: their witness."""
    found: Counter[str] = Counter()
    for engine in world.engines:
        found.update(engine.told)
    return found


def reckon(world: World, story: Story) -> dict[str, int]:
    """Compare engine counters, the engines' witness, bills and what clients saw."""
    asked = asked_of(world)
    billed = {f"{request_id}-{attempt}": record for (request_id, attempt), record in world.hub.usage.items()}
    sent = Counter(record for batch in world.hub.batches for record in set(batch.records))
    versions = Counter((record.request_id, record.attempt) for record in sent)
    undelivered = sum(
        max(0, tokens - billed[name].completion_tokens) for name, tokens in asked.items() if name in billed
    )
    counters = sum(engine.produced for engine in world.engines)
    total = sum(record.completion_tokens for record in billed.values())
    seen: Counter[str] = Counter()
    for outcome in story.outcomes:
        seen[f"{outcome.request_id}-1"] += outcome.tokens if outcome.status == 200 else 0
    unbilled = {name: tokens - billed[name].completion_tokens for name, tokens in seen.items() if name in billed}
    whole = [one for one in story.outcomes if one.whole]
    return {
        "duplicates": sum(count - 1 for count in versions.values()),
        "engine_tokens": counters,
        "billed": total,
        "undelivered": undelivered,
        "unexplained": counters - total - undelivered,
        "over_billed": sum(record.completion_tokens > asked[name] for name, record in billed.items()),
        "delivered_unbilled": sum(tokens for tokens in unbilled.values() if tokens > 0),
        "whole_answers": len(whole),
        "whole_unbilled": sum(unbilled.get(f"{one.request_id}-1", one.tokens) > 0 for one in whole),
    }
