"""Choosing slots and placing adapters: pure rules."""

from dataclasses import replace
from pathlib import Path

from serving.contract import Slot
from serving.pool.placement import Planned, SetLoad, let_go_of_ended, live_adapters, plan_replicas
from tests.pool.world import make_desired, want_adapter

BASE = Path("/bases/one")


def slots_of(count: int) -> tuple[Slot, ...]:
    return make_desired(BASE, slots=count).slots


def test_minimum_maximum_and_wants() -> None:
    desired = make_desired(BASE, minimum=2, slots=1)
    plan = plan_replicas(desired, {"set_a": SetLoad(True, 900)}, running=(), ready=(), now_us=0)
    assert [item.slot.slot_id for item in plan.replicas] == ["slot_0"]
    assert [(want.slots, want.queue_wait_ms) for want in plan.wants] == [(1, 900)]
    greedy = replace(desired, adapters=(want_adapter("a" * 64, BASE, min_replicas=9),), slots=slots_of(5))
    plan = plan_replicas(greedy, {}, running=(), ready=(), now_us=0)
    assert len(plan.replicas) == 2, "never above the set's maximum"
    assert plan.wants == ()


def test_running_replicas_keep_their_slots() -> None:
    desired = make_desired(BASE, minimum=1, slots=3)
    last = Planned(desired.replica_sets[0], desired.slots[2])
    plan = plan_replicas(desired, {}, running={last.replica_id}, ready=(), now_us=0)
    assert plan.replicas == (last,)


def test_an_adapter_past_its_keep_until_counts_no_more() -> None:
    adapter = want_adapter("a" * 64, BASE, keep_until=1_000)
    desired = replace(make_desired(BASE, minimum=0), adapters=(adapter,))
    assert live_adapters(desired, 999) == [adapter]
    assert len(plan_replicas(desired, {}, running=(), ready=(), now_us=999).replicas) == 1
    assert live_adapters(desired, 1_000) == []
    assert plan_replicas(desired, {}, running=(), ready=(), now_us=1_000).replicas == ()


def test_a_slot_to_be_drained_stays_until_its_replacement_is_ready() -> None:
    desired = make_desired(BASE, minimum=1, slots=2)
    leaving = replace(desired.slots[0], drain_by=1_000_000_000)
    desired = replace(desired, slots=(leaving, desired.slots[1]))
    old, new = (Planned(desired.replica_sets[0], slot) for slot in desired.slots)
    running = {old.replica_id, new.replica_id}

    def planned(*, ready: set[str], now_us: int) -> list[Planned]:
        plan = plan_replicas(desired, {}, running=running, ready=ready, now_us=now_us)
        return sorted(plan.replicas, key=lambda item: item.slot.slot_id)

    assert planned(ready={old.replica_id}, now_us=0) == [old, new]
    assert planned(ready=running, now_us=0) == [new]
    assert planned(ready={old.replica_id}, now_us=950_000_000) == [new], "the last minute belongs to the drain"
    only = replace(desired, slots=(leaving,))
    assert plan_replicas(only, {}, running=(), ready=(), now_us=0).replicas == (), "nothing new on a leaving slot"


def test_with_too_many_running_the_ready_one_stays() -> None:
    desired = make_desired(BASE, minimum=1, slots=2)
    starting, serving = (Planned(desired.replica_sets[0], slot) for slot in desired.slots)
    running = {starting.replica_id, serving.replica_id}
    plan = plan_replicas(desired, {}, running=running, ready={serving.replica_id}, now_us=0)
    assert plan.replicas == (serving,)


def test_a_set_on_which_all_has_ended_keeps_its_minimum_while_it_is_warm_and_then_only_for_calls() -> None:
    plain = make_desired(BASE)
    ending = replace(plain.replica_sets[0], keep_until=1_000, idle_s=60)
    desired = replace(plain, replica_sets=(ending,))
    cold_at_us = 1_000 + 60_000_000
    assert let_go_of_ended(plain, cold_at_us) == plain
    assert let_go_of_ended(desired, cold_at_us - 1) == desired
    ended = let_go_of_ended(desired, cold_at_us)
    assert plan_replicas(ended, {}, running=(), ready=(), now_us=cold_at_us).replicas == ()
    called = {"set_a": SetLoad(is_called=True)}
    assert len(plan_replicas(ended, called, running=(), ready=(), now_us=cold_at_us).replicas) == 1
