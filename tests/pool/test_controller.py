"""The controller's life with a fake engine process: start, load, fail, hang, drain, restart, lose the hub."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from serving.contract import AdapterState, Demand, DemandRow, Purpose, ReplicaSet, ReplicaState, Slot, engine_name
from serving.pool.controller import Controller
from serving.pool.engine_command import EngineCommand
from tests.pool.engine_contract import check_engine
from tests.pool.world import (
    FAST,
    World,
    eventually,
    make_adapter,
    make_base,
    make_desired,
    make_world,
    want_adapter,
)


async def call(url: str, model: str, *, max_tokens: int = 1, spin_s: float = 0.0) -> tuple[int, str]:
    body = {"model": model, "prompt": [1, 2], "max_tokens": max_tokens, "spin_s": spin_s}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/completions", json=body) as response:
        answer = await response.json()
        return response.status, answer["choices"][0]["text"] if response.status == 200 else ""


async def become_ready(world: World) -> str:
    ready = await eventually(lambda: world.hub.replica(ReplicaState.READY))
    return str(ready.url)


def is_routed(controller: Controller) -> bool:
    return len(controller.routes.routes.replicas) > 0


def is_draining(controller: Controller) -> bool:
    return [item.draining for item in controller.routes.routes.replicas] == [True]


def test_starts_warms_up_and_routes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(make_base(tmp_path / "base"))) as world:
            async with world.controller() as controller:
                url = await become_ready(world)
                routed = await controller.routes.wait_for_change(0, 1)
                assert routed is not None
                assert [(item.url, item.epoch, item.draining) for item in routed.replicas] == [(url, 1, False)]
                assert await controller.routes.wait_for_change(routed.version, 0.2) is None
                first = world.hub.replica()
                assert first is not None
                await eventually(lambda: (world.hub.replica() or first).device_ms > first.device_ms)
            assert world.running() == []
            stopped = world.hub.replica(ReplicaState.STOPPED)
            assert stopped is not None, "the last report says that it stopped"
            assert controller.routes.routes.replicas == ()

    asyncio.run(scenario())


def test_the_fake_engine_answers_the_pool_as_vllm_does(tmp_path: Path) -> None:
    _digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")

    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(make_base(tmp_path / "base"))) as world, world.controller():
            await check_engine(await become_ready(world), folder)

    asyncio.run(scenario())


def test_adapters_are_verified_loaded_and_unloaded(tmp_path: Path) -> None:
    good, good_folder = make_adapter(tmp_path / "new" / "good", tmp_path / "elsewhere")
    bad, bad_folder = make_adapter(tmp_path / "new" / "bad", tmp_path / "store", text="b")
    (bad_folder / "adapter_config.json").write_text("changed")
    both = (want_adapter(good, good_folder), want_adapter(bad, bad_folder))
    plain = make_desired(make_base(tmp_path / "base"))

    async def scenario() -> None:
        async with make_world(tmp_path, replace(plain, adapters=both)) as world, world.controller() as controller:
            url = await become_ready(world)
            await eventually(lambda: getattr(world.hub.adapter(good), "ready_on", ()))
            refused = await eventually(lambda: world.hub.adapter(bad))
            assert (refused.state, refused.reason_code) == (AdapterState.FAILED, "digest_mismatch")
            assert await call(url, engine_name(good)) == (200, str(tmp_path / "store" / good))
            assert list(controller.routes.routes.placement) == [good]
            world.hub.want(plain)
            await eventually(lambda: not controller.routes.routes.placement)
            await eventually(lambda: world.hub.observed and not world.hub.observed.adapters)
            await asyncio.sleep(0.2)
            while (await call(url, engine_name(good)))[0] != 404:
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_killed_engine_comes_back_as_next_epoch_with_its_adapters(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    desired = make_desired(make_base(tmp_path / "base"), adapters=(want_adapter(digest, folder),))

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            await eventually(lambda: controller.routes.routes.placement)
            os.kill(world.running()[0], signal.SIGKILL)
            failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "engine_killed_sigkill"
            assert not is_routed(controller)
            await eventually(lambda: controller.routes.routes.placement)
            assert [item.epoch for item in controller.routes.routes.replicas] == [2]

    asyncio.run(scenario())


def test_drain_tells_gateways_first_and_finishes_requests(tmp_path: Path) -> None:
    desired = make_desired(make_base(tmp_path / "base"))

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            url = await become_ready(world)
            request = asyncio.create_task(call(url, "base", max_tokens=100))
            await asyncio.sleep(0.1)
            world.hub.want(replace(desired, replica_sets=(), slots=()))
            await eventually(lambda: is_draining(controller))
            assert len(world.running()) == 1
            assert await request == (200, "base")
            await eventually(lambda: world.hub.replica(ReplicaState.STOPPED))
            assert world.running() == []

    asyncio.run(scenario())


def test_a_restarted_controller_adopts_and_restarts_nothing(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    desired = make_desired(make_base(tmp_path / "base"), adapters=(want_adapter(digest, folder),))

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world:
            async with world.controller(keep_replicas=True) as controller:
                await eventually(lambda: controller.routes.routes.placement)
                before = world.hub.replica()
                version = controller.routes.routes.version
            pids = world.running()
            assert len(pids) == 1
            world.hub.observed = None
            async with world.controller() as controller:
                await eventually(lambda: controller.routes.routes.placement)
                after = await eventually(lambda: world.hub.replica(ReplicaState.READY))
                assert before is not None
                assert (after.url, after.replica_epoch) == (before.url, 1)
                assert after.device_ms >= before.device_ms
                assert world.running() == pids
                assert controller.routes.routes.version > version
            assert world.running() == []

    asyncio.run(scenario())


def test_a_refused_epoch_leads_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(make_base(tmp_path / "base"))) as world, world.controller():
            await become_ready(world)
            world.hub.epoch, world.hub.observed = 40, None
            observed = await eventually(lambda: world.hub.observed)
            assert observed.epoch == 41
            assert world.hub.leads == 2
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY))
            assert ready.replica_epoch == 1, "leading again restarts nothing"

    asyncio.run(scenario())


def test_a_set_without_minimum_starts_when_called(tmp_path: Path) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"), minimum=0)
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            await eventually(lambda: world.hub.observed)
            await asyncio.sleep(0.3)
            assert world.running() == []
            controller.demand.record(Demand("gw", (DemandRow("b" * 64, 0, 1, 500),)))
            await become_ready(world)

    asyncio.run(scenario())


def test_without_a_slot_nothing_starts_and_the_hub_is_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"), slots=0)
        async with make_world(tmp_path, desired) as world, world.controller():
            observed = await eventually(lambda: world.hub.observed)
            assert [(want.set_id, want.slots) for want in observed.wants] == [("set_a", 1)]
            assert world.running() == []

    asyncio.run(scenario())


def exiting_commands(_replica_set: ReplicaSet, _slot: Slot, *, model: Path, port: int) -> EngineCommand:
    return EngineCommand((sys.executable, "-c", "raise SystemExit(3)"), {})


def test_an_engine_that_cannot_start_is_tried_again_with_back_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired, exiting_commands) as world, world.controller():
            await eventually(lambda: getattr(world.hub.replica(), "replica_epoch", 0) >= 3)
            failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "engine_exited_3"
            assert len(world.launch.list_mine()) <= 1, "ended processes are forgotten"

    asyncio.run(scenario())


def test_a_missing_base_is_said_plainly(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(tmp_path / "nowhere")) as world, world.controller():
            failed = await eventually(lambda: world.hub.replica(ReplicaState.FAILED))
            assert failed.reason_code == "artifact_missing"

    asyncio.run(scenario())


def test_a_desired_state_that_cannot_be_kept_is_followed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.pool.memory.Memory.save_desired", refuse)

    async def scenario() -> None:
        desired = make_desired(make_base(tmp_path / "base"))
        async with make_world(tmp_path, desired) as world, world.controller():
            await become_ready(world)

    asyncio.run(scenario())


def test_a_defect_ends_the_controller_and_leaves_engines_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_a_running_controller(world: World) -> None:
        async with world.controller():
            await become_ready(world)
            monkeypatch.setattr(Controller, "_observe", lambda *_: 1 // 0)
            await asyncio.sleep(0.5)

    async def scenario() -> None:
        async with make_world(tmp_path, make_desired(make_base(tmp_path / "base"))) as world:
            with pytest.raises(ZeroDivisionError):
                await break_a_running_controller(world)
            assert len(world.running()) == 1

    asyncio.run(scenario())


def test_an_evaluation_engine_is_outside_the_routes_and_loads_only_what_is_for_it(tmp_path: Path) -> None:
    served, served_folder = make_adapter(tmp_path / "new" / "served", tmp_path / "store")
    tried, tried_folder = make_adapter(tmp_path / "new" / "tried", tmp_path / "store", text="b")
    plain = make_desired(make_base(tmp_path / "base"))
    apart = replace(plain.replica_sets[0], set_id="set_e", purpose=Purpose.EVALUATE)
    desired = replace(
        plain,
        replica_sets=(*plain.replica_sets, apart),
        slots=(*plain.slots, replace(plain.slots[0], slot_id="slot_e", set_id="set_e")),
        adapters=(
            want_adapter(served, served_folder),
            replace(want_adapter(tried, tried_folder), purposes=(Purpose.EVALUATE,)),
        ),
    )

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            ready = await eventually(lambda: getattr(world.hub.adapter(tried), "ready_on", ()))
            await eventually(lambda: controller.routes.routes.placement)
            observed = world.hub.observed
            assert observed is not None
            sets = {item.replica_id: item.set_id for item in observed.replicas}
            assert [sets[name] for name in ready] == ["set_e"]
            assert [sets[item.id] for item in controller.routes.routes.replicas] == ["set_a"]
            assert list(controller.routes.routes.placement) == [served]

    asyncio.run(scenario())


def test_the_gain_of_a_hot_adapter_is_measured_and_told(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    desired = make_desired(make_base(tmp_path / "base"), adapters=(want_adapter(digest, folder),))
    timing = replace(FAST, gain_interval_s=0.2, gain_window_s=0.2)

    async def scenario() -> None:
        async with make_world(tmp_path, desired, timing=timing) as world:
            async with world.controller(keep_replicas=True) as controller:
                await eventually(lambda: getattr(world.hub.adapter(digest), "ready_on", ()))
                assert world.hub.adapter(digest).speed_up_percent is None
                for _ in range(30):
                    controller.demand.record(Demand("gw", (DemandRow(digest, 9, 0, 0), DemandRow("b" * 64, 3, 0, 0))))
                    await asyncio.sleep(0.1)
                told = await eventually(lambda: getattr(world.hub.adapter(digest), "speed_up_percent", None))
                assert 50 <= told <= 200, "the fake engine's slots cost nothing"
                await eventually(lambda: world.hub.adapter(digest).share_percent == 75)
            world.hub.observed = None
            async with world.controller():
                await eventually(lambda: getattr(world.hub.adapter(digest), "ready_on", ()))
                assert world.hub.adapter(digest).speed_up_percent == told, "nothing is measured again, nobody calls"

    asyncio.run(scenario())


def test_other_options_come_to_one_engine_after_the_other(tmp_path: Path) -> None:
    plain = make_desired(make_base(tmp_path / "base"), minimum=2, slots=2)
    wide, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    larger = replace(plain.replica_sets[0], max_lora_rank=16)
    adapter = replace(want_adapter(wide, folder), rank=16)
    fewest: list[int] = []
    states: set[AdapterState] = set()

    def both_are_new(controller: Controller, world: World) -> bool:
        serving = [item for item in controller.routes.routes.replicas if not item.draining]
        fewest.append(len(serving))
        seen = world.hub.adapter(wide)
        states.update((seen.state,) if seen else ())
        return [item.epoch for item in serving] == [2, 2] and bool(controller.routes.routes.placement)

    async def scenario() -> None:
        async with make_world(tmp_path, plain) as world, world.controller() as controller:
            await eventually(lambda: len(controller.routes.routes.replicas) == 2)
            world.hub.want(replace(plain, replica_sets=(larger,), adapters=(adapter,)))
            await eventually(lambda: both_are_new(controller, world))
            assert min(fewest) == 1
            assert AdapterState.FAILED not in states

    asyncio.run(scenario())


def test_an_engine_whose_slot_was_given_away_does_not_wait_for_others(tmp_path: Path) -> None:
    plain = make_desired(make_base(tmp_path / "base"), minimum=2, slots=2)
    slots = tuple(replace(slot, allocation_epoch=2) for slot in plain.slots)

    async def scenario() -> None:
        async with make_world(tmp_path, plain) as world, world.controller() as controller:
            await eventually(lambda: len(controller.routes.routes.replicas) == 2)
            world.hub.want(replace(plain, slots=slots))
            await eventually(lambda: [item.draining for item in controller.routes.routes.replicas] == [True, True])

    asyncio.run(scenario())
