"""Measures the pool on real vLLM; the last line is one JSON object.

    make bench-pool        (python -m benchmarks.pool [--rounds 5] [--seconds 6] [--part one|two])

Ratios are of medians over rounds in which all variants take turns. What each figure is stands in ../NOTES.md, "Pool".
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from benchmarks.pool.load import Ask, Taken, draw_tokens, draw_zipf, measure
from benchmarks.pool.scene import (
    BASE_NAME,
    KEY,
    START_S,
    Models,
    make_models,
    running_gateway,
    running_pool,
)
from benchmarks.running_market import describe_machine
from serving.contract import ModelTarget, engine_name
from serving.pool.controller import Controller
from tests.gateway.control import Hub
from tests.gateway.samples import make_model
from tests.pool.world import World, eventually

ADAPTERS = 64
AT_ONCE = 16
"""Calls under way for each engine."""
SLOTS = 8
INSTRUCTION_TOKENS = 896
"""What the calls of one fine-tune share before their own 48 tokens: its task and two examples."""
KV_BLOCKS = 256
"""Memory of each of two engines, in blocks of 128 tokens: the instructions of 32 adapters and 16 calls fit."""
SETTLE_S = 300.0
"""A core computes an instruction in some four seconds, so caches are full after this long, as in a day's work."""
LONGER = 5
"""Turns with instructions are so much longer: a minute of them is some 60 calls, few for caches of 64 adapters."""
HOT_LOADS = 20
PROMOTIONS = 20
Figures = dict[str, float]
Variants = dict[str, Callable[[int], Ask]]


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    folder: Path
    models: Models
    rounds: int
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 1 when a call failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each variant in each round")
    parser.add_argument("--part", choices=("one", "two", "both"), default="both", help="one engine, two, or both")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = make_models(folder / "models", ADAPTERS + PROMOTIONS)
        bench = Bench(folder, models, options.rounds, options.seconds)
        figures = asyncio.run(run(bench, options.part))
    print(json.dumps({"machine": describe_machine(), **{name: round(value, 4) for name, value in figures.items()}}))
    return 1 if figures["errors"] else 0


async def run(bench: Bench, part: str) -> Figures:
    """The parts, one after the other, each with its own engines."""
    one = await measure_one_engine(bench) if part != "two" else {"errors": 0.0}
    two = await measure_two_engines(bench) if part != "one" else {"errors": 0.0}
    return one | two | {"errors": one["errors"] + two["errors"]}


async def measure_one_engine(bench: Bench) -> Figures:
    """Slots for every adapter: gateway against direct, adapters and merged weights against the base, promotions."""
    began = time.monotonic()
    async with running_pool(bench.folder / "one", bench.models, replicas=1, slots=ADAPTERS, adapters=0) as running:
        world, controller, pool_url = running
        cold_s = time.monotonic() - began
        engine = controller.routes.routes.replicas[0].url
        hot_s = await measure_hot_loads(engine, bench.models)
        world.hub.want(replace(world.hub.desired, adapters=bench.models.want(ADAPTERS)))
        await eventually(lambda: len(controller.routes.routes.placement) == ADAPTERS, START_S)
        merged = await start_merged(world, bench.models)
        async with running_gateway(bench.folder / "g1", bench.models, pool_url, adapters=ADAPTERS) as (gateway, hub):
            taken = await take_turns(bench, variants_of_one(bench.models, engine, merged, gateway))
            promote_s = [await promote(bench, world, gateway, hub, number) for number in range(PROMOTIONS)]
    rate = {name: statistics.median(run.tokens_per_s for run in runs) for name, runs in taken.items()}
    return {
        **{f"{name}_tok_s": value for name, value in rate.items()},
        "gateway_vs_direct": rate["gateway"] / rate["base"],
        **{f"adapters_{count}": rate[f"lora_{count}"] / rate["base"] for count in (1, 8, 64)},
        "merged_vs_base": rate["merged"] / rate["base"],
        "merged_vs_slot": rate["merged"] / rate["lora_1"],
        "cold_start_s": cold_s,
        "hotload_ms": 1000 * statistics.median(hot_s),
        "hotload_vs_cold": statistics.median(hot_s) / cold_s,
        "promote_p50_s": statistics.median(promote_s),
        "promote_p99_s": sorted(promote_s)[int(0.99 * (len(promote_s) - 1) + 0.5)],
        "errors": float(sum(run.errors for runs in taken.values() for run in runs)),
    }


def variants_of_one(models: Models, engine: str, merged: str, gateway: str) -> Variants:
    """Who is asked in turn."""
    names = [engine_name(digest) for digest, _ in models.adapters]

    def lora(count: int) -> Callable[[int], Ask]:
        return lambda number: Ask(engine, names[number % count])

    return {
        "base": lambda _number: Ask(engine, "base"),
        "gateway": lambda _number: Ask(gateway, BASE_NAME, KEY),
        "lora_1": lora(1),
        "lora_8": lora(8),
        "lora_64": lora(64),
        "merged": lambda _number: Ask(merged, names[0]),
    }


async def measure_two_engines(bench: Bench) -> Figures:
    """64 adapters over two engines of 8 slots, drawn by Zipf: through the product, and to either engine in turn.

    Each way has two engines of its own, on the same cores, and so a cache of prompts that the other does not empty.
    """
    folder, models, taken = bench.folder, bench.models, dict[str, list[Taken]]()
    product = running_pool(folder / "two", models, replicas=2, slots=SLOTS, adapters=ADAPTERS, kv_blocks=KV_BLOCKS)
    beside = running_pool(folder / "turns", models, replicas=2, slots=SLOTS, adapters=0, kv_blocks=KV_BLOCKS)
    async with product as (_, placed, pool_url), beside as (_, controller, _):
        engines = urls_of(controller)
        await load_everywhere(engines, models)
        async with running_gateway(folder / "g2", models, pool_url, adapters=ADAPTERS) as (gateway, _hub):
            longer, both = replace(bench, seconds=bench.seconds * LONGER), 2 * AT_ONCE
            shared = variants_of_two(engines, gateway, plain=False)
            await take_turns(replace(longer, rounds=0), shared, at_once=both, settle_s=SETTLE_S)
            ways = {"affinity": urls_of(placed), "round_robin": engines}
            before = {name: await count_cached(urls) for name, urls in ways.items()}
            taken |= await take_turns(longer, shared, at_once=both)
            after = {name: await count_cached(urls) for name, urls in ways.items()}
            plain = variants_of_two(engines, gateway, plain=True)
            taken |= await take_turns(bench, plain, at_once=both)
    rate = {name: statistics.median(run.tokens_per_s for run in runs) for name, runs in taken.items()}
    wait = {name: statistics.median(run.median_s for run in runs) for name, runs in taken.items()}
    return {
        **{f"{name}_tok_s": value for name, value in rate.items()},
        "affinity_vs_round_robin": rate["affinity"] / rate["round_robin"],
        "affinity_vs_round_robin_plain": rate["affinity_plain"] / rate["round_robin_plain"],
        **{f"{name}_call_s": value for name, value in wait.items()},
        **{f"{name}_cached": share_cached(before[name], after[name]) for name in ways},
        "errors": float(sum(run.errors for runs in taken.values() for run in runs)),
    }


def urls_of(controller: Controller) -> list[str]:
    """Where the engines of one way answer."""
    return [replica.url for replica in controller.routes.routes.replicas]


async def count_cached(engines: list[str]) -> tuple[float, float]:
    """Return prompt tokens that these engines found in their caches and those they looked for, by vLLM's counters."""
    found = asked = 0.0
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        for engine in engines:
            async with http.get(f"{engine}/metrics") as answer:
                for line in (await answer.text()).splitlines():
                    found += float(line.split()[-1]) if line.startswith("vllm:prefix_cache_hits_total") else 0.0
                    asked += float(line.split()[-1]) if line.startswith("vllm:prefix_cache_queries_total") else 0.0
    return found, asked


def share_cached(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Of the prompt tokens between two counts, the share that came from a cache."""
    return (after[0] - before[0]) / (after[1] - before[1])


def variants_of_two(engines: list[str], gateway: str, *, plain: bool) -> Variants:
    """The same draw for both ways; `plain` calls share no instruction."""
    rng = random.Random(2)
    shared = [tuple(draw_tokens(rng, INSTRUCTION_TOKENS)) for _ in range(ADAPTERS)]
    routed, turned = draw_zipf(ADAPTERS, seed=1), draw_zipf(ADAPTERS, seed=1)

    def route(_number: int) -> Ask:
        adapter = routed()
        return Ask(gateway, f"bench/a{adapter}", KEY, () if plain else shared[adapter])

    def turn(number: int) -> Ask:
        adapter = turned()
        return Ask(engines[number % 2], f"everywhere-{adapter}", "", () if plain else shared[adapter])

    ending = "_plain" if plain else ""
    return {f"affinity{ending}": route, f"round_robin{ending}": turn}


async def take_turns(
    bench: Bench, variants: Variants, *, at_once: int = AT_ONCE, settle_s: float = 1.0
) -> dict[str, list[Taken]]:
    """Every variant in every round, after one turn of `settle_s` each that does not count."""
    taken: dict[str, list[Taken]] = defaultdict(list)
    for number in range(bench.rounds + 1):
        for name, choose in variants.items():
            seconds = bench.seconds if number else settle_s
            run = await measure(choose, at_once=at_once, seconds=seconds)
            if number:
                taken[name].append(run)
                print(f"round {number} {name}: {run.tokens_per_s:.0f} tok/s, {run.errors} errors", flush=True)
    return taken


async def measure_hot_loads(engine: str, models: Models) -> list[float]:
    """Seconds of the engine's load call, under names of their own, unloaded after it."""
    took = []
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        for number in range(HOT_LOADS):
            body = {"lora_name": f"bench-{number}", "lora_path": str(models.adapters[number][1])}
            began = time.monotonic()
            async with http.post(f"{engine}/v1/load_lora_adapter", json=body) as answer:
                await answer.read()
            took.append(time.monotonic() - began)
            async with http.post(f"{engine}/v1/unload_lora_adapter", json={"lora_name": f"bench-{number}"}) as answer:
                await answer.read()
    return took


async def start_merged(world: World, models: Models) -> str:
    """Want an engine with the first adapter in its weights; returns its URL."""
    desired = world.hub.desired
    digest = models.adapters[0][0]
    merged = replace(desired.replica_sets[0], set_id="set_m", uri=models.merged.as_uri(), max_loras=0, min=1, max=1)
    merged = replace(merged, merged=digest, weights_folder="f" * 64)
    slot = replace(desired.slots[0], slot_id="slot_m_0", set_id="set_m")
    world.hub.want(replace(desired, replica_sets=(*desired.replica_sets, merged), slots=(*desired.slots, slot)))

    def find() -> str | None:
        replicas = world.hub.observed.replicas if world.hub.observed else ()
        return next((item.url for item in replicas if item.set_id == "set_m" and item.state == "ready"), None)

    return str(await eventually(find, START_S))


async def promote(bench: Bench, world: World, gateway: str, hub: Hub, number: int) -> float:
    """Seconds from the wish for a new version until a call of the same name gets the new version's first answer.

    The pool fetches, verifies, loads and warms it up; then the hub moves the name, as the hub of the product does.
    """
    digest, _folder = bench.models.adapters[ADAPTERS + number]
    began = time.monotonic()
    wanted = bench.models.want(ADAPTERS) + bench.models.want(ADAPTERS + number + 1)[ADAPTERS:]
    world.hub.want(replace(world.hub.desired, adapters=wanted))
    await eventually(lambda: getattr(world.hub.adapter(digest), "ready_on", ()), START_S)
    move_name(hub, digest, number)
    async with aiohttp.ClientSession() as http:
        body = {"model": "bench/promoted", "prompt": [5, 6, 7], "max_tokens": 1}
        while True:
            headers = {"authorization": f"Bearer {KEY}"}
            async with http.post(f"{gateway}/v1/completions", json=body, headers=headers) as answer:
                await answer.read()
                if answer.headers.get("x-guanmo-model-version") == f"ver_{number}" and answer.status == 200:
                    return time.monotonic() - began
            await asyncio.sleep(0.01)


def move_name(hub: Hub, digest: str, number: int) -> None:
    """Point `bench/promoted` at a version."""
    snapshot = hub.snapshot
    target = ModelTarget(f"ver_{number}", digest, 1)
    promoted = make_model("bench/promoted", targets=(target,), version_id=f"ver_{number}")
    others = tuple(model for model in snapshot.models if model.public_name != "bench/promoted")
    hub.snapshot = replace(snapshot, version=snapshot.version + 1, models=(*others, promoted))


async def load_everywhere(engines: list[str], models: Models) -> None:
    """Round robin needs every adapter on every engine, under names that the controller leaves alone."""
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        for engine in engines:
            for number, (_digest, folder) in enumerate(models.adapters[:ADAPTERS]):
                body = {"lora_name": f"everywhere-{number}", "lora_path": str(folder)}
                async with http.post(f"{engine}/v1/load_lora_adapter", json=body) as answer:
                    await answer.read()


if __name__ == "__main__":
    sys.exit(main())
