"""What keeps an engine alive or ends it: hangs, long work, SIGILL at the first request."""

import asyncio
import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.contract import ObservedReplica, ReplicaSet, ReplicaState, Slot
from serving.launch import LaunchSpec, LocalLaunch
from serving.pool.engine_command import CommandBuilder, EngineCommand
from serving.pool.settings import Timing
from tests.pool.test_controller import become_ready, call
from tests.pool.world import (
    FAST,
    World,
    eventually,
    fake_commands,
    make_base,
    make_desired,
    make_world,
)

LOG = logging.getLogger(__name__)
EJECTION_S = 10.0
PRODUCT = replace(FAST, probe_interval_s=Timing().probe_interval_s, probe_timeout_s=Timing().probe_timeout_s)


def with_option(*option: str) -> CommandBuilder:
    def build(replica_set: ReplicaSet, slot: Slot, *, model: Path, port: int) -> EngineCommand:
        command = fake_commands(replica_set, slot, model=model, port=port)
        return replace(command, argv=(*command.argv, *option))

    return build


def still_ready(world: World) -> bool:
    found = world.hub.replica()
    return found is not None and (found.state, found.replica_epoch) == (ReplicaState.READY, 1)


@pytest.mark.parametrize("pause_s", [0.1, 2.1])
def test_a_hung_engine_is_out_of_the_routes_within_ten_seconds(tmp_path: Path, pause_s: float) -> None:
    """With the product's own waits; the pause puts the hang at another moment between two probes."""

    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired, timing=PRODUCT) as world, world.controller() as controller:
            await become_ready(world)
            await asyncio.sleep(pause_s)
            os.kill(world.running()[0], signal.SIGSTOP)
            began = time.monotonic()
            await eventually(lambda: not controller.routes.routes.replicas)
            took_s = time.monotonic() - began
            LOG.info("a stopped fake engine left the routes after %.1f s", took_s)
            assert took_s <= EJECTION_S
            failed: ObservedReplica = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "engine_silent"
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY))
            assert ready.replica_epoch == 2

    asyncio.run(scenario())


def test_a_busy_engine_stays(tmp_path: Path) -> None:
    """Slower than the probe allows, but its counters move."""

    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired, with_option("--serial")) as world, world.controller():
            url = await become_ready(world)
            calls = [call(url, "base", max_tokens=40) for _ in range(8)]  # 3.2 s of work, one at a time
            assert {status for status, _text in await asyncio.gather(*calls)} == {200}
            assert still_ready(world)

    asyncio.run(scenario())


@pytest.mark.parametrize(("spin_s", "stays"), [(3.0, True), (60.0, False)])
def test_an_engine_on_one_long_prompt_is_given_longer_but_not_for_ever(
    tmp_path: Path, spin_s: float, stays: bool
) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired) as world, world.controller():
            url = await become_ready(world)
            request = asyncio.create_task(call(url, "base", spin_s=spin_s))
            if stays:
                assert await request == (200, "base")
                assert still_ready(world)
            else:
                failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED), 30)
                assert failed.reason_code == "engine_silent"
                await asyncio.gather(request, return_exceptions=True)

    asyncio.run(scenario())


def test_a_sigill_at_the_first_request_is_one_more_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        commands = with_option("--dies-once", str(tmp_path / "died"))
        async with make_world(tmp_path, desired, commands) as world, world.controller():
            failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "engine_killed_sigill"
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY))
            assert ready.replica_epoch == 2

    asyncio.run(scenario())


def test_processor_time_does_not_fall_when_a_child_ends(tmp_path: Path) -> None:
    launch = LocalLaunch(tmp_path / "processes")
    burn = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass"
    wait = "open('over', 'w').close()\ntime.sleep(60)"
    run = f"import subprocess, time\nsubprocess.run(['python3', '-c', {burn!r}])\n{wait}"
    argv = ("python3", "-c", run)
    handle = launch.start(LaunchSpec("compile", argv, {"PATH": os.environ["PATH"]}, tmp_path, tmp_path / "log"))
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "over").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert launch.cpu_s(handle) > 0.5
    finally:
        launch.fence(handle)


def test_processor_time_is_that_of_the_whole_group(tmp_path: Path) -> None:
    launch = LocalLaunch(tmp_path / "processes")
    burn = "import os, time\nos.fork()\nuntil = time.monotonic() + 60\nwhile time.monotonic() < until: pass"
    argv = ("python3", "-c", burn)
    handle = launch.start(LaunchSpec("burn", argv, {"PATH": os.environ["PATH"]}, tmp_path, tmp_path / "log"))
    try:
        deadline = time.monotonic() + 20
        while launch.cpu_s(handle) < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        launch.signal(handle, "kill")
        launch.fence(handle)
        assert launch.cpu_s(handle) == 0.0
    finally:
        launch.fence(handle)
