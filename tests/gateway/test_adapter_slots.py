"""Slots of engines: shared by the calls of one adapter, handed on in order, closed doors, nobody starves."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from serving.contract import RouteReplica
from serving.gateway.adapter_slots import AdapterSlots
from serving.gateway.clock import Clock

BASE = "b" * 64


def engine(slots: int = 2, name: str = "r", merged: str | None = None) -> RouteReplica:
    return RouteReplica(name, 1, "http://x", BASE, draining=False, max_loras=slots, merged=merged)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def enter(slots: AdapterSlots, replica: RouteReplica, digest: str) -> bool | None:
    return True if slots.try_enter(replica, digest) else await slots.enter(replica, digest, 10)


def test_calls_of_one_adapter_share_a_slot_and_others_wait_in_order() -> None:
    async def scenario() -> None:
        slots, one = AdapterSlots(Clock(), patience_s=60), engine()
        assert [slots.try_enter(one, name) for name in "aaab"] == [True] * 4
        assert not slots.try_enter(one, "c")
        assert slots.try_enter(one, BASE), "the base needs no slot"
        first, second = (asyncio.create_task(enter(slots, one, name)) for name in "cd")
        third = asyncio.create_task(enter(slots, one, "c"))
        await asyncio.sleep(0)
        slots.leave(one, "a")
        slots.leave(one, "a")
        await asyncio.sleep(0)
        assert not first.done(), "one call of a is still there"
        slots.leave(one, "a")
        assert (await first, await third) == (True, True), "both calls of c came in together"
        assert not second.done()
        slots.leave(one, "b")
        assert await second

    play(scenario())


def test_a_closed_door_gives_a_stream_of_calls_an_end() -> None:
    """Without it `a` would keep the only slot for ever: a new call comes before the last one ends."""

    async def scenario() -> None:
        slots, one = AdapterSlots(Clock(), patience_s=0.05), engine(1)
        counts = {"a": 0, "b": 0}
        until = asyncio.get_running_loop().time() + 1.5

        async def call_for_ever(digest: str) -> None:
            while asyncio.get_running_loop().time() < until:
                assert await enter(slots, one, digest)
                counts[digest] += 1
                await asyncio.sleep(0.01)
                slots.leave(one, digest)

        await asyncio.gather(*[call_for_ever(digest) for digest in "aaab"])
        assert counts["b"] >= 5
        assert counts["a"] >= 50, "the door opens again"

    play(scenario())


def test_an_engine_that_leaves_the_routes_lets_its_waiters_go() -> None:
    async def scenario() -> None:
        slots, one = AdapterSlots(Clock()), engine(1)
        slots.try_enter(one, "a")
        waiting = asyncio.create_task(slots.enter(one, "b", 10))
        await asyncio.sleep(0)
        slots.keep(())
        assert await waiting is False
        slots.leave(one, "a")
        assert slots.try_enter(one, "b")

    play(scenario())


def test_a_wait_may_end_without_a_slot_or_be_given_up() -> None:
    async def scenario() -> None:
        slots, one = AdapterSlots(Clock()), engine(1)
        slots.try_enter(one, "a")
        assert await slots.enter(one, "b", 0.01) is None
        gone = asyncio.create_task(slots.enter(one, "b", 10))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        slots.leave(one, "a")
        assert slots.try_enter(one, "c"), "nobody waits any more"

    play(scenario())


def test_a_merged_engine_needs_no_slot() -> None:
    slots = AdapterSlots(Clock())
    assert [slots.try_enter(engine(0, merged="m"), "m") for _ in range(3)] == [True] * 3


def test_never_more_adapters_at_once_than_slots_and_everybody_gets_through() -> None:
    async def scenario() -> None:
        slots, one = AdapterSlots(Clock(), patience_s=0.02), engine(3)
        rng, inside, most, done = random.Random(7), [], 0, 0

        async def call(digest: str) -> None:
            nonlocal most, done
            await asyncio.sleep(rng.random() * 0.3)
            work = asyncio.create_task(enter(slots, one, digest))
            if rng.random() < 0.1:
                await asyncio.sleep(0.005)
                work.cancel()
            try:
                entered = await work
            except asyncio.CancelledError:
                done += 1
                return
            assert entered
            inside.append(digest)
            most = max(most, len(set(inside)))
            await asyncio.sleep(rng.random() * 0.02)
            inside.remove(digest)
            slots.leave(one, digest)
            done += 1

        await asyncio.gather(*[call(f"a{int(rng.random() ** 3 * 12)}") for _ in range(300)])
        assert done == 300
        assert most == 3

    play(scenario())
