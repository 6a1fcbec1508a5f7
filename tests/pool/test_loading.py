"""Loading beside the pulse: an engine that hangs meanwhile is found, one that reads for long stays; one load a time."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from serving.contract import AdapterState, DesiredAdapter, ReplicaState
from tests.pool.test_controller import become_ready
from tests.pool.test_supervision import EJECTION_S, PRODUCT, still_ready, with_option
from tests.pool.world import World, eventually, make_adapter, make_base, make_desired, make_world, want_adapter


def make_wanted(folder: Path, text: str) -> DesiredAdapter:
    return want_adapter(*make_adapter(folder / "new" / text, folder / "store", text=text))


def is_loading(world: World, digest: str, *, epoch: int) -> bool:
    adapter, replica = world.hub.adapter(digest), world.hub.replica(ReplicaState.READY)
    if adapter is None or replica is None or replica.replica_epoch != epoch:
        return False
    return (adapter.state, adapter.reason_code) == (AdapterState.LOADING, None)


def test_an_engine_that_hangs_while_it_loads_is_out_of_the_routes_within_ten_seconds(tmp_path: Path) -> None:
    """With the product's own waits; the engine that follows is asked to load again."""
    desired, one = make_desired(make_base(tmp_path / "base")), make_wanted(tmp_path, "a")

    async def scenario() -> None:
        slow = with_option("--load-s", "60")
        async with make_world(tmp_path, desired, slow, PRODUCT) as world, world.controller() as controller:
            await become_ready(world)
            world.hub.want(replace(desired, adapters=(one,)))
            await eventually(lambda: is_loading(world, one.digest, epoch=1))
            os.kill(world.running()[0], signal.SIGSTOP)
            began = time.monotonic()
            await eventually(lambda: not controller.routes.routes.replicas)
            assert time.monotonic() - began <= EJECTION_S
            failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "engine_silent"
            await eventually(lambda: is_loading(world, one.digest, epoch=2))

    asyncio.run(scenario())


def test_an_engine_that_reads_an_adapter_for_longer_than_a_probe_waits_stays(tmp_path: Path) -> None:
    desired = replace(make_desired(make_base(tmp_path / "base")), adapters=(make_wanted(tmp_path, "a"),))
    reading_s = 1.2  # longer than one probe waits, shorter than two

    async def scenario() -> None:
        slow = with_option("--load-s", str(reading_s))
        async with make_world(tmp_path, desired, slow) as world, world.controller() as controller:
            await eventually(lambda: controller.routes.routes.placement)
            assert still_ready(world)

    asyncio.run(scenario())


def test_loads_never_overlap_though_more_is_wanted_meanwhile(tmp_path: Path) -> None:
    """The fake engine refuses a second load at once."""
    desired = make_desired(make_base(tmp_path / "base"))
    adapters = [make_wanted(tmp_path, text) for text in "abc"]

    async def scenario() -> None:
        slow = with_option("--load-s", "0.4")
        async with make_world(tmp_path, desired, slow) as world, world.controller() as controller:
            await become_ready(world)
            for count in (1, 2, 3):
                world.hub.want(replace(desired, adapters=tuple(adapters[:count])))
                await eventually(lambda last=adapters[count - 1]: world.hub.adapter(last.digest))
            await eventually(lambda: len(controller.routes.routes.placement) == len(adapters))
            assert still_ready(world)

    asyncio.run(scenario())


def test_a_replica_that_ends_while_it_loads_ends_cleanly(tmp_path: Path) -> None:
    desired = replace(make_desired(make_base(tmp_path / "base")), adapters=(make_wanted(tmp_path, "a"),))

    async def scenario() -> None:
        async with make_world(tmp_path, desired, with_option("--load-s", "60")) as world:
            async with world.controller():
                await eventually(lambda: is_loading(world, desired.adapters[0].digest, epoch=1))
                assert len(asyncio.all_tasks()) > 1
            assert world.running() == []
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [task for task in left if "shelf" in repr(task) or "pulse" in repr(task)]

    asyncio.run(scenario())
