"""One firm floods the engines with 64 streams, another asks with one: what each gets."""

import asyncio
import statistics
from pathlib import Path

from tests.faults_serving.conftest import Say
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.samples import make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, running_gateway, running_world

MANY, ONE = 1, 2
PLACES = 8
SNAPSHOT = make_snapshot(
    keys=(make_key(MANY), make_key(ONE, organisation_id="org_small")), models=(make_model("org/base"),)
)


def flood(gateway: Gateway, *, seconds: float, streams: int) -> dict[int, list[Outcome]]:
    """Keep 64 streams of one firm and one of another going; return what ended within the time."""
    seen: dict[int, list[Outcome]] = {MANY: [], ONE: []}

    async def caller(number: int) -> Outcome:
        key = ONE if number == streams else MANY
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        last = Outcome()
        while loop.time() < until_s:
            last = await call(gateway.url, secret_of(key))
            seen[key].append(last)
        return last

    run_crowd(streams + 1, caller)
    return seen


def test_sixty_four_streams_do_not_starve_one(tmp_path: Path, say: Say, long: bool) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        world.engines[0].tokens, world.engines[0].delay_s = 10, 0.02
        options = ("--calls-per-replica", str(PLACES))
        with running_gateway(world, hold_s=60.0, more=options) as gateway:
            alone = flood(gateway, seconds=1.0, streams=0)[ONE]
            seen = flood(gateway, seconds=20.0 if long else 4.0, streams=64)
            most_running = world.engines[0].most_running
    assert {one.whole for found in seen.values() for one in found} == {True}
    took_s = {key: statistics.median(one.took_s for one in found) for key, found in seen.items()}
    alone_s = statistics.median(one.took_s for one in alone)
    say(
        places=PLACES,
        alone_s=round(alone_s, 3),
        one_stream_s=round(took_s[ONE], 3),
        each_of_64_s=round(took_s[MANY], 3),
        one_stream_vs_alone=round(took_s[ONE] / alone_s, 2),
        engine_places_used=most_running,
    )
    assert most_running <= PLACES + 1
    # In one queue the single stream would wait like each of the 64, eight times its own length.
    assert took_s[ONE] < took_s[MANY] / 3
    assert took_s[ONE] < 2.5 * alone_s
