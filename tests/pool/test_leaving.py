"""Places that end: their engines' adapters answer elsewhere first, calls finish, and they are empty in time."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from serving.contract import ReplicaState, Slot
from serving.pool.placement import Planned, plan_replicas
from tests.pool.test_controller import become_ready, call, is_draining
from tests.pool.test_supervision import with_option
from tests.pool.world import eventually, make_adapter, make_base, make_desired, make_world, want_adapter

MARGIN_S = 60


def ends_in(slot: Slot, seconds: float) -> Slot:
    return replace(slot, drain_by=int((time.time() + seconds) * 1e6))


def test_an_adapter_answers_on_another_engine_before_its_place_ends(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    both = make_desired(make_base(tmp_path / "base"), slots=2, adapters=(want_adapter(digest, folder),))
    old, new = (Planned(both.replica_sets[0], slot).replica_id for slot in both.slots)

    async def scenario() -> None:
        one = replace(both, slots=both.slots[:1])
        async with make_world(tmp_path, one, with_option("--load-s", "1.5")) as world, world.controller() as controller:
            await eventually(lambda: controller.routes.routes.placement)
            world.hub.want(replace(both, slots=(ends_in(both.slots[0], 3600), both.slots[1])))
            seen: set[tuple[str, ...]] = set()

            def has_moved() -> bool:
                seen.add(controller.routes.routes.placement.get(digest, ()))
                return [item.id for item in controller.routes.routes.replicas] == [new]

            await eventually(has_moved)
            assert () not in seen, "it answered all the time"
            assert controller.routes.routes.placement == {digest: (new,)}
            stopped = await eventually(lambda: world.hub.replica(ReplicaState.STOPPED))
            assert stopped.replica_id == old

    asyncio.run(scenario())


def test_a_place_is_empty_by_its_time_though_nothing_replaces_it(tmp_path: Path) -> None:
    desired = make_desired(make_base(tmp_path / "base"))

    async def scenario() -> None:
        async with make_world(tmp_path, desired) as world, world.controller() as controller:
            url = await become_ready(world)
            slot = ends_in(desired.slots[0], MARGIN_S + 2)
            world.hub.want(replace(desired, slots=(slot,)))
            wanting = await eventually(lambda: world.hub.observed and world.hub.observed.wants)
            assert [(want.set_id, want.slots) for want in wanting] == [("set_a", 1)]
            assert not is_draining(controller), "its last minute has not begun"
            await asyncio.sleep(1.0)
            request = asyncio.create_task(call(url, "base", max_tokens=200))
            await eventually(lambda: is_draining(controller))
            assert await request == (200, "base")
            await eventually(lambda: world.hub.replica(ReplicaState.STOPPED))
            assert world.running() == []
            assert time.time() * 1e6 < (slot.drain_by or 0)

    asyncio.run(scenario())


def test_what_has_not_moved_stays_until_the_last_minute_unless_nobody_needs_it() -> None:
    desired = make_desired(Path("/bases/one"), slots=2)
    slots = (replace(desired.slots[0], drain_by=1_000_000_000), desired.slots[1])
    old, new = (Planned(desired.replica_sets[0], slot) for slot in slots)
    names = {old.replica_id, new.replica_id}

    def planned(minimum: int, now_us: int) -> set[str]:
        sets = (replace(desired.replica_sets[0], min=minimum),)
        wanted = replace(desired, replica_sets=sets, slots=slots)
        plan = plan_replicas(wanted, {}, running=names, ready=names, unmoved={old.replica_id}, now_us=now_us)
        return {item.replica_id for item in plan.replicas}

    assert planned(1, 0) == names
    assert planned(1, 950_000_000) == {new.replica_id}
    assert planned(0, 0) == set()
