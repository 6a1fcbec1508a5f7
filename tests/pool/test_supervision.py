"""What keeps an engine alive or ends it: hangs, long work, SIGILL at the first request, another controller."""

import asyncio
import json
import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.contract import ObservedReplica, ReplicaSet, ReplicaState, Slot
from serving.launch import LaunchSpec, LocalLaunch
from serving.pool.artifacts import verify_base
from serving.pool.engine_command import CommandBuilder, EngineCommand
from serving.pool.settings import Timing
from tests.pool.test_controller import become_ready, call, is_draining
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


def test_engines_found_running_stay_as_long_as_a_call_would_keep_them(tmp_path: Path) -> None:
    plain = make_desired(make_base(tmp_path / "base"))
    idle_s = 3
    idle = replace(plain, replica_sets=(replace(plain.replica_sets[0], min=0, idle_s=idle_s),))

    async def scenario() -> None:
        async with make_world(tmp_path, plain) as world:
            async with world.controller(keep_replicas=True):
                await become_ready(world)
            assert len(world.running()) == 1
            world.hub.want(idle)
            began = time.monotonic()
            async with world.controller():
                await eventually(lambda: not world.running())
                assert time.monotonic() - began >= idle_s

    asyncio.run(scenario())


def test_a_start_that_its_controller_did_not_outlive_is_given_up_at_once(tmp_path: Path) -> None:
    desired = make_desired(make_base(tmp_path / "base"))
    unborn = LaunchSpec("rep_lost-1", ("engine",), {}, tmp_path, tmp_path / "lost.log")

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world:
            world.launch._claim_name(unborn)  # as a start does before anything else
            async with world.controller():
                await become_ready(world)
                assert world.launch.find(unborn.name) is None

    asyncio.run(scenario())


def test_an_engine_found_running_is_drained_with_notice_though_it_was_not_felt_yet(tmp_path: Path) -> None:
    desired = make_desired(make_base(tmp_path / "base"))

    async def scenario() -> None:
        async with make_world(tmp_path, desired, with_option("--serial")) as world:
            async with world.controller(keep_replicas=True):
                url = await become_ready(world)
            request = asyncio.create_task(call(url, "base", max_tokens=300))  # the next warm-up waits behind it
            await asyncio.sleep(0.2)
            world.hub.want(replace(desired, replica_sets=(), slots=()))
            async with world.controller() as controller:
                await eventually(lambda: is_draining(controller))
                assert await request == (200, "base")
                await eventually(lambda: not world.running())

    asyncio.run(scenario())


def test_an_unreadable_folder_fails_its_own_engine_alone_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who reads every folder: the refusal is made."""
    plain = make_desired(make_base(tmp_path / "base"))
    other = replace(plain.replica_sets[0], set_id="set_b", uri=make_base(tmp_path / "other").as_uri())
    slots = (*plain.slots, replace(plain.slots[0], slot_id="slot_b", set_id="set_b"))
    desired = replace(plain, replica_sets=(*plain.replica_sets, other), slots=slots)
    locked = {other.uri}

    def verify_unlocked(uri: str, digest: str) -> Path:
        if uri in locked:
            raise PermissionError(13, "Permission denied", uri)
        return verify_base(uri, digest)

    def find_failed(world: World) -> ObservedReplica | None:
        found = world.hub.replica(ReplicaState.FAILED)
        return found if found is not None and found.replica_epoch >= 3 else None

    async def scenario() -> None:
        began = time.monotonic()
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            failed = await eventually(lambda: find_failed(world))
            assert (failed.set_id, failed.reason_code) == ("set_b", "host_error")
            assert time.monotonic() - began >= FAST.backoff_first_s * (1 + 2)
            await eventually(lambda: len(controller.routes.routes.replicas) == 1)
            locked.clear()
            await eventually(lambda: len(controller.routes.routes.replicas) == 2)

    monkeypatch.setattr("serving.pool.replica.verify_base", verify_unlocked)
    asyncio.run(scenario())


def test_what_comes_before_the_process_is_no_part_of_how_long_a_start_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desired, verifying_s = make_desired(make_base(tmp_path / "base")), 2.0

    def verify_slowly(uri: str, digest: str) -> Path:
        time.sleep(verifying_s)
        return verify_base(uri, digest)

    monkeypatch.setattr("serving.pool.replica.verify_base", verify_slowly)

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world:
            began = time.monotonic()
            async with world.controller():
                await become_ready(world)
                took_s = time.monotonic() - began
            (known,) = json.loads((tmp_path / "state" / "replicas.json").read_text()).values()
            assert 0 < known["start_ms"] / 1000 <= took_s - verifying_s

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
