"""Gateways and engines killed and clients gone at random times under load: every token an engine made is accounted for.

The engines are the fake whose answers `tests/engines` compares with vLLM's; kills of vLLM itself are in `test_engines`.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serving.contract import EndReason, UsageRecord, cost_ufen
from tests.faults_serving.conftest import Say
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.engine import Engine
from tests.gateway.samples import PRICES, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

CALLERS = 10
PROCESSES = 3
TOKEN_S = 0.01
TOKENS = 60
MOST_UNEXPLAINED = 64
WHOLE = "".join(f"w{number} " for number in range(1, TOKENS + 1))
SNAPSHOT = make_snapshot(keys=(make_key(1),), models=(make_model("org/base"),))


@dataclass
class Story:
    """What happened: who was killed how often, what the clients saw; `dead` are killed engines by replica and epoch."""

    gateway_kills: int = 0
    client_kills: int = 0
    dead: dict[tuple[str, int], Engine] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    over: bool = False


@pytest.mark.timeout(1800)
def test_every_token_is_accounted_for(tmp_path: Path, say: Say, long: bool, chance: random.Random) -> None:
    wanted = 60 if long else 3  # fewer kills may strike no greedy stream
    story = Story()
    with running_world(SNAPSHOT, tmp_path, engines=2) as world:
        start_ufen = world.hub.balance_ufen
        for engine in world.engines:
            engine.tokens, engine.delay_s = TOKENS, TOKEN_S
        with running_gateway(world, hold_s=30.0, processes=PROCESSES) as gateway:
            killer = threading.Thread(target=kill_in_turn, args=(gateway, world, story, wanted, chance))
            killer.start()
            call_until_over(gateway, story, wanted, seed=chance.random())
            killer.join()
            wait_for(lambda: has_delivered(world, story), timeout_s=30)
            assert gateway.stop() == 0
        spent_ufen = start_ufen - world.hub.balance_ufen
        figures = reckon(world, story)
        say(
            kills=story.gateway_kills + story.client_kills + len(story.dead),
            gateways=story.gateway_kills,
            engines=len(story.dead),
            clients=story.client_kills,
            calls=len(story.outcomes),
            **figures,
        )
        assert story.gateway_kills == len(story.dead) == wanted
        assert story.client_kills >= wanted
        assert (figures["duplicates"], figures["unexplained"], figures["over_billed"]) == (0, 0, 0)
        assert figures["unwritten_tokens"] <= MOST_UNEXPLAINED * wanted
        assert figures["most_unbilled_of_a_killed_engine"] <= MOST_UNEXPLAINED
        assert (figures["delivered_unbilled"], figures["whole_unbilled"]) == (0, 0)
        assert figures["greedy_struck"] > 0
        assert figures["greedy_same_text"] >= 0.95 * figures["greedy_struck"]
        assert spent_ufen == sum(
            cost_ufen(PRICES, record.prompt_tokens, record.cached_tokens, record.completion_tokens)
            for record in world.hub.usage.values()
        )
        assert world.hub.closed.keys() == world.hub.allowances.keys()


def kill_in_turn(gateway: Gateway, world: World, story: Story, wanted: int, chance: random.Random) -> None:
    """Kill gateways and engines at random times, each time once as many as should are there."""
    kinds = ["gateway", "engine"] * wanted
    chance.shuffle(kinds)
    try:
        for kind in kinds:
            wait_for(lambda: len(gateway.workers()) == PROCESSES, timeout_s=30)
            time.sleep(chance.uniform(0.1, 1.2))
            if kind == "gateway":
                kill_gateway(gateway, story, chance)
            else:
                kill_engine(world, story, chance)
    finally:
        story.over = True


def kill_gateway(gateway: Gateway, story: Story, chance: random.Random) -> None:
    os.kill(chance.choice(gateway.workers()), signal.SIGKILL)
    story.gateway_kills += 1
    wanted = PROCESSES + story.gateway_kills
    wait_for(lambda: gateway.log_path.read_text().count("on http://") >= wanted, timeout_s=60)


def kill_engine(world: World, story: Story, chance: random.Random) -> None:
    """Kill one of the two; the pool notices a moment later and has another in its place a moment after that."""
    number = chance.randrange(2)
    replica = next(one for one in world.pool.routes.replicas if one.id == f"rep_{number}")
    story.dead[(replica.id, replica.epoch)] = world.kill_engine(number)
    time.sleep(chance.uniform(0.0, 0.4))
    world.route((1 - number,))
    time.sleep(chance.uniform(0.1, 1.0))
    world.start_engine(number, Engine(tokens=TOKENS, delay_s=TOKEN_S))
    world.route(range(2))


def call_until_over(gateway: Gateway, story: Story, wanted: int, *, seed: float) -> None:
    """Keep callers busy; about every third hangs up after a random number of words, three of four are greedy."""

    async def caller(number: int) -> Outcome:
        chance, outcome = random.Random(seed + number), Outcome()
        while not story.over or story.client_kills < wanted:
            leaves = chance.randrange(1, TOKENS) if chance.random() < 0.35 else None
            # Each question is another one: one that met an engine's death is not asked again for a while.
            asked: Any = {"messages": [{"role": "user", "content": f"question {chance.random()}"}]}
            outcome = await call(
                gateway.url,
                secret_of(1),
                leave_after=leaves,
                stream=leaves is not None or chance.random() < 0.8,
                temperature=chance.choice((0, 0, 0, 1)),
                **asked,
            )
            story.client_kills += outcome.left
            story.outcomes.append(outcome)
            if outcome.status == 0:
                await asyncio.sleep(0.1)
        return outcome

    run_crowd(CALLERS, caller)


def has_delivered(world: World, story: Story) -> bool:
    """Return whether the hub has a record of every call of which a client had something."""
    return {one.request_id for one in story.outcomes if one.tokens} <= {name for name, _ in tuple(world.hub.usage)}


def reckon(world: World, story: Story) -> dict[str, int]:
    """Compare engine counters, the engines' witness, bills and what clients saw."""
    billed = {f"{request_id}-{attempt}": record for (request_id, attempt), record in world.hub.usage.items()}
    sent = {record for batch in world.hub.batches for record in batch.records}
    versions = Counter((record.request_id, record.attempt) for record in sent)
    living, dead = world.engines, list(story.dead.values())
    asked = {name: tokens for engine in (*living, *dead) for name, tokens in engine.told.items()}
    paid = Counter({name: record.completion_tokens for name, record in billed.items()})
    undelivered = [sum(tokens - paid[name] for name, tokens in one.told.items()) for one in living]
    total = [sum(paid[name] for name in one.told) for one in living]
    cut = [unbilled_at_death(one, billed) for one in dead]
    # A gateway killed in the moment between sending a call and writing it down: an engine knows it, no client had any.
    unwritten = {name: tokens for name, tokens in asked.items() if name not in billed}
    return {
        "duplicates": sum(count - 1 for count in versions.values()),
        "surviving_counted": sum(one.produced for one in living),
        "surviving_billed": sum(total),
        "surviving_undelivered": sum(undelivered),
        "unexplained": sum(one.produced for one in living) - sum(total) - sum(undelivered),
        "unwritten_calls": len(unwritten),
        "unwritten_tokens": sum(unwritten.values()),
        "most_unbilled_of_a_killed_engine": max(cut, default=0),
        "over_billed": sum(record.completion_tokens > asked.get(name, 0) for name, record in billed.items()),
        **compare_with_clients(story, billed),
    }


def unbilled_at_death(engine: Engine, billed: dict[str, UsageRecord]) -> int:
    """Return what a killed engine had made beyond the bills of the calls that it died with."""
    records = [(billed[name], tokens) for name, tokens in engine.told.items() if name in billed]
    return sum(
        tokens - record.completion_tokens for record, tokens in records if record.end_reason is EndReason.UPSTREAM_DIED
    )


def compare_with_clients(story: Story, billed: dict[str, UsageRecord]) -> dict[str, int]:
    """Compare what clients got with what they pay, and find the greedy streams that outlived their engine."""
    paid: Counter[str] = Counter()
    struck: set[str] = set()
    cut: set[str] = set()
    for record in billed.values():
        paid[record.request_id] += record.completion_tokens
        if record.end_reason is EndReason.UPSTREAM_DIED and record.completion_tokens:
            struck.add(record.request_id)
        elif record.end_reason is EndReason.GATEWAY_RESTART:
            cut.add(record.request_id)
    whole = [one for one in story.outcomes if one.whole]
    greedy = [one for one in story.outcomes if one.request_id in struck - cut and one.greedy and not one.left]
    return {
        "delivered_unbilled": sum(max(0, one.tokens - paid[one.request_id]) for one in story.outcomes),
        "whole_answers": len(whole),
        "whole_unbilled": sum(one.tokens > paid[one.request_id] for one in whole),
        "greedy_struck": len(greedy),
        "greedy_same_text": sum(one.whole and one.text == WHOLE for one in greedy),
    }
