"""Who leads acts on engines; whoever does not, or may not any more, leaves them running and only looks on."""

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from hub.deployments.rules import LEAD_S
from serving.contract import AdapterState, Desired, Observed, ReplicaState, engine_name
from serving.pool.adapter_placement import Host, place_adapters
from serving.pool.hub_link import HubLink, HubSilentError, WrongEpochError
from serving.pool.memory import Memory
from serving.pool.settings import Timing
from tests.pool.test_controller import become_ready, is_routed
from tests.pool.test_supervision import with_option
from tests.pool.world import (
    FAST,
    FakeHub,
    World,
    eventually,
    make_adapter,
    make_base,
    make_desired,
    make_world,
    want_adapter,
)

SHORT_LEAD = replace(FAST, lead_s=1.0)
LONG_ENOUGH_S = 1.5  # for anybody who acts to have acted


def make_plain(folder: Path) -> Desired:
    return make_desired(make_base(folder / "base"))


async def kill_engine(world: World) -> None:
    (pid,) = world.running()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not world.running())


async def list_models(url: str) -> list[str]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/models") as answer:
        return [model["id"] for model in (await answer.json())["data"]]


def test_the_controller_stops_acting_before_the_hub_gives_the_lead_away() -> None:
    assert Timing().lead_s + Timing().tick_s < LEAD_S


def test_a_second_controller_starts_nothing_while_the_first_leads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_world(tmp_path, make_plain(tmp_path)) as world, world.controller():
            await become_ready(world)
            async with world.controller(state="second") as second:
                await eventually(lambda: second.read_status()["hub"] == "wrong_epoch")
                await asyncio.sleep(LONG_ENOUGH_S)
                assert world.running("second") == []
                assert second.read_status()["epoch"] is None
            assert len(world.running()) == 1

    asyncio.run(scenario())


def test_the_lead_goes_over_and_back_and_each_controller_acts_in_its_own_time_alone(tmp_path: Path) -> None:
    plain = make_plain(tmp_path)

    async def scenario() -> None:
        async with make_world(tmp_path, plain, timing=SHORT_LEAD) as world, world.controller() as first:
            await become_ready(world)
            world.hub.silent_to.add("state")
            await asyncio.sleep(SHORT_LEAD.lead_s)
            world.hub.end_lead()
            async with world.controller(state="second") as second:
                await eventually(lambda: is_routed(second))
                world.hub.silent_to.clear()
                await eventually(lambda: first.read_status()["hub"] == "wrong_epoch")
                world.hub.want(replace(plain, replica_sets=(), slots=()))
                await eventually(lambda: not world.running("second"))
                assert len(world.running()) == 1, "the first one does not follow what it is not to see"
                assert is_routed(first)
                await kill_engine(world)
                await eventually(lambda: not is_routed(first))
                await asyncio.sleep(LONG_ENOUGH_S)
                assert world.running() == [], "nor does it start anything"
                world.hub.want(plain)
                await eventually(lambda: is_routed(second))
            assert world.running("second") == [], "who leads ends its engines when it ends"
            world.hub.end_lead()
            await eventually(lambda: is_routed(first))
            assert [item.epoch for item in first.routes.routes.replicas] == [2]
        assert world.running() == []

    asyncio.run(scenario())


def test_what_changed_while_another_led_is_known_before_anything_is_done(tmp_path: Path) -> None:
    """The set was renamed meanwhile: its former engine goes, and is not started anew before."""
    plain = make_plain(tmp_path)
    other = replace(plain.replica_sets[0], set_id="set_b")
    changed = replace(plain, replica_sets=(other,), slots=(replace(plain.slots[0], set_id="set_b"),))

    async def scenario() -> None:
        async with make_world(tmp_path, plain) as world, world.controller() as controller:
            await become_ready(world)
            world.hub.depose()
            await eventually(lambda: controller.read_status()["epoch"] is None)
            await kill_engine(world)
            await eventually(lambda: not is_routed(controller))
            world.hub.want(changed)
            world.hub.observed = None
            world.hub.end_lead()
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY))
            assert ready.set_id == "set_b"
            known = json.loads((tmp_path / "state" / "replicas.json").read_text())
            assert [item["epoch"] for item in known.values()] == [1, 1], "no engine was started twice"

    asyncio.run(scenario())


def test_what_was_desired_last_stays_in_force_however_long_the_hub_is_silent(tmp_path: Path) -> None:
    async def scenario() -> None:
        plain = make_plain(tmp_path)
        async with make_world(tmp_path, plain, timing=SHORT_LEAD) as world, world.controller() as controller:
            await become_ready(world)
            world.hub.silent_to.add("state")
            await asyncio.sleep(SHORT_LEAD.lead_s + SHORT_LEAD.tick_s)
            assert is_routed(controller)
            await kill_engine(world)
            await eventually(lambda: [item.epoch for item in controller.routes.routes.replicas] == [2])
            assert controller.read_status()["hub"] == "hub_silent"
            world.hub.silent_to.clear()
            await eventually(lambda: controller.read_status()["hub"] == "ok")
            assert world.hub.leads == 1, "nobody else led meanwhile"

    asyncio.run(scenario())


def test_a_controller_that_was_stopped_for_longer_than_its_lead_asks_before_it_acts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the hub answers, refuses or is away, it is asked first; only who was refused leads no more."""
    now_s = [100.0]
    monkeypatch.setattr("serving.pool.hub_link._now_s", lambda: now_s[0])

    async def scenario() -> None:
        hub = FakeHub(Desired(1, 1, (), (), ()))
        runner = await hub.start()
        async with aiohttp.ClientSession() as http:
            link = HubLink(http, hub_url=f"{hub.url}/state", token="secret", controller_id="a", lead_s=15.0)
            report = Observed(await link.ensure_lead(), 1, (), ())
            now_s[0] += 14.0
            assert link.leads()
            now_s[0] += 2.0
            assert not link.leads()
            await link.report(report)
            assert link.leads()
            now_s[0] += 3600.0
            assert not link.leads()
            hub.silent_to.add("state")
            with pytest.raises(HubSilentError):
                await link.report(report)
            assert link.leads()
            hub.silent_to.clear()
            hub.depose()
            with pytest.raises(WrongEpochError):
                await link.report(report)
            assert not link.leads()
        await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "leads"), [(503, True), (401, False), (403, False), (404, False)])
def test_only_a_hub_that_is_away_leaves_the_lead_where_it_is(
    monkeypatch: pytest.MonkeyPatch, status: int, leads: bool
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("serving.pool.hub_link._now_s", lambda: now_s[0])

    async def scenario(link: HubLink, hub: FakeHub) -> None:
        report = Observed(await link.ensure_lead(), 1, (), ())
        now_s[0] += 16.0
        hub.silent_to.add("state")
        hub.silence = status
        with pytest.raises(HubSilentError):
            await link.report(report)
        assert link.leads() is leads

    run_link(scenario)


@pytest.mark.parametrize(("took_s", "leads"), [(11.0, True), (13.0, False)])
def test_a_controller_that_was_stopped_during_its_report_asks_again(
    monkeypatch: pytest.MonkeyPatch, took_s: float, leads: bool
) -> None:
    """Whoever ran on would have given the call up after ten seconds."""
    times = itertools.count(100.0, took_s)
    monkeypatch.setattr("serving.pool.hub_link._now_s", lambda: next(times))

    async def scenario(link: HubLink, hub: FakeHub) -> None:
        report = Observed(await link.ensure_lead(), 1, (), ())
        hub.silent_to.add("state")
        with pytest.raises(HubSilentError):
            await link.report(report)
        assert link.leads() is leads

    run_link(scenario)


def run_link(scenario: Callable[[HubLink, FakeHub], Awaitable[None]]) -> None:
    async def play() -> None:
        hub = FakeHub(Desired(1, 1, (), (), ()))
        runner = await hub.start()
        async with aiohttp.ClientSession() as http:
            url = f"{hub.url}/state"
            await scenario(HubLink(http, hub_url=url, token="secret", controller_id="a", lead_s=15.0), hub)
        await runner.cleanup()

    asyncio.run(play())


def test_an_engine_found_running_serves_with_its_adapters_while_the_hub_is_silent(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    desired = replace(make_plain(tmp_path), adapters=(want_adapter(digest, folder),))

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world:
            async with world.controller(keep_replicas=True) as controller:
                await eventually(lambda: controller.routes.routes.placement)
            pids = world.running()
            world.hub.silent_to.add("state")
            async with world.controller() as controller:
                await eventually(lambda: controller.routes.routes.placement)
                assert controller.read_status()["hub"] == "hub_silent"
            assert world.running() == pids, "who does not lead ends no engine at its own end"

    asyncio.run(scenario())


def test_adapters_stay_on_the_engines_that_were_found_with_them_while_the_hub_is_silent(tmp_path: Path) -> None:
    """They are where nobody would put them now, and nothing may be loaded."""
    sealed = [make_adapter(tmp_path / "new" / text, tmp_path / "store", text=text) for text in "abcd"]
    plain = make_desired(make_base(tmp_path / "base"), minimum=2, slots=2)
    plain = replace(plain, replica_sets=(replace(plain.replica_sets[0], max_loras=1),))
    wanted = replace(plain, adapters=tuple(want_adapter(*item) for item in sealed))

    async def scenario() -> None:
        async with make_world(tmp_path, plain) as world:
            async with world.controller(keep_replicas=True) as controller:
                await eventually(lambda: len(controller.routes.routes.replicas) == 2)
                urls = {item.id: item.url for item in controller.routes.routes.replicas}
            goal = place_adapters(wanted.adapters, [Host(name, 1) for name in urls])
            for digest, folder in sealed:
                (other,) = urls.keys() - set(goal[digest])
                await load_adapter(urls[other], digest, folder)
            Memory(tmp_path / "state").save_desired(wanted)
            world.hub.silent_to.add("state")
            async with world.controller() as controller:
                await eventually(lambda: len(controller.routes.routes.placement) == len(sealed))
                for digest, names in controller.routes.routes.placement.items():
                    assert not set(names) & set(goal[digest])

    asyncio.run(scenario())


async def load_adapter(url: str, digest: str, folder: Path) -> None:
    body = {"lora_name": engine_name(digest), "lora_path": str(folder)}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/load_lora_adapter", json=body) as answer:
        assert answer.status == 200


def test_no_load_is_begun_once_another_leads(tmp_path: Path) -> None:
    sealed = [make_adapter(tmp_path / "new" / text, tmp_path / "store", text=text) for text in "abcd"]
    plain = make_plain(tmp_path)
    loading_s = 0.8  # longer than a report waits for its turn

    def is_loading(world: World) -> bool:
        seen = [world.hub.adapter(digest) for digest, _folder in sealed]
        return any(item is not None and (item.state, item.reason_code) == (AdapterState.LOADING, None) for item in seen)

    async def scenario() -> None:
        slow = with_option("--load-s", str(loading_s))
        async with make_world(tmp_path, plain, slow) as world, world.controller() as controller:
            url = await become_ready(world)
            world.hub.want(replace(plain, adapters=tuple(want_adapter(*item) for item in sealed)))
            await eventually(lambda: is_loading(world))
            world.hub.depose()
            await eventually(lambda: controller.read_status()["epoch"] is None)
            await asyncio.sleep(2 * loading_s)
            loaded = await list_models(url)
            assert len(loaded) <= 2, "the base, and the one whose load was under way"
            await asyncio.sleep(loading_s)
            assert await list_models(url) == loaded
            world.hub.end_lead()
            await eventually(lambda: len(controller.routes.routes.placement) == len(sealed))

    asyncio.run(scenario())


def test_a_slot_whose_time_is_over_is_emptied_whoever_leads(tmp_path: Path) -> None:
    plain = make_plain(tmp_path)

    async def scenario() -> None:
        async with make_world(tmp_path, plain, timing=SHORT_LEAD) as world, world.controller() as controller:
            await become_ready(world)
            empty_from = time.time() + 3.0  # a minute before the slot is given away
            slot = replace(plain.slots[0], drain_by=int((empty_from + 60) * 1e6))
            world.hub.want(replace(plain, slots=(slot,)))
            await eventually(lambda: controller.read_status()["generation"] == world.hub.desired.generation)
            world.hub.silent_to.add("state")
            await asyncio.sleep(SHORT_LEAD.lead_s + SHORT_LEAD.tick_s)
            assert len(world.running()) == 1
            await eventually(lambda: not world.running())
            assert time.time() >= empty_from

    asyncio.run(scenario())
