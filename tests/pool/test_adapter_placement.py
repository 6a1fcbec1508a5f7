"""Where adapters go: slots, bounded load, ranks apart, and staying put."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.contract import DesiredAdapter
from serving.pool.adapter_placement import Holding, Host, Placement, PlacementView, bridge_moves, place_adapters
from serving.pool.residency import Residency
from tests.pool.world import want_adapter


def make_adapters(count: int, *, rank: int = 8) -> list[DesiredAdapter]:
    return [replace(want_adapter(f"{rank:02x}{number:062x}", Path("/b")), rank=rank) for number in range(count)]


def make_hosts(count: int, slots: int) -> list[Host]:
    return [Host(f"r{number}", slots) for number in range(count)]


def loads_of(placed: Placement, loads: dict[str, float]) -> Counter[str]:
    carried: Counter[str] = Counter()
    for digest, hosts in placed.items():
        for host in hosts:
            carried[host] += loads[digest] / len(hosts)  # type: ignore[assignment]
    return carried


def test_all_adapters_on_all_replicas_while_they_fit() -> None:
    placed = place_adapters(make_adapters(4), [Host("r1", 4), Host("r2", 8)])
    assert placed == {item.digest: ["r1", "r2"] for item in make_adapters(4)}


@given(count=st.integers(1, 40), replicas=st.integers(1, 5), slots=st.integers(1, 8))
def test_every_adapter_can_be_called_and_no_slot_is_overfilled_while_one_is_free(
    count: int, replicas: int, slots: int
) -> None:
    placed = place_adapters(make_adapters(count), make_hosts(replicas, slots))
    assert set(placed) == {item.digest for item in make_adapters(count)}
    used = Counter(name for hosts in placed.values() for name in hosts)
    if count <= replicas * slots and count > slots:
        assert max(used.values()) <= slots
    if count > replicas * slots:
        assert max(used.values()) <= 1.25 * count / replicas + 1


@given(seed=st.integers(0, 10_000), replicas=st.integers(2, 6))
def test_load_is_bounded_for_zipf(seed: int, replicas: int) -> None:
    adapters = make_adapters(64)
    order = random.Random(seed).sample(adapters, len(adapters))
    loads = {adapter.digest: 1.0 / place for place, adapter in enumerate(order, 1)}
    placed = place_adapters(adapters, make_hosts(replicas, 8), PlacementView(loads))
    carried = loads_of(placed, loads)
    heaviest = max(loads[digest] / len(hosts) for digest, hosts in placed.items())
    assert max(carried.values()) <= 1.25 * sum(loads.values()) / replicas + heaviest
    assert carried.keys() == {host.replica_id for host in make_hosts(replicas, 8)}


def test_a_hot_adapter_goes_onto_as_many_replicas_as_its_share_needs() -> None:
    adapters = make_adapters(20)
    loads = {adapter.digest: 1.0 for adapter in adapters} | {adapters[0].digest: 40.0}
    placed = place_adapters(adapters, make_hosts(4, 8), PlacementView(loads))
    assert len(placed[adapters[0].digest]) == 3, "40 of 59, a replica takes at most 1.25 quarters"
    assert {len(placed[item.digest]) for item in adapters[1:]} == {1}


def test_losing_a_replica_moves_only_its_adapters() -> None:
    adapters, hosts = make_adapters(12), make_hosts(3, 6)
    before = place_adapters(adapters, hosts)
    after = place_adapters(adapters, hosts[:2], PlacementView(placed=before))
    moved = [digest for digest in before if before[digest] != after[digest]]
    assert all(before[digest] == ["r2"] for digest in moved)
    assert 0 < len(moved) < len(adapters)


def test_an_adapter_stays_while_loads_move_a_little() -> None:
    adapters, hosts = make_adapters(30), make_hosts(2, 8)
    placed: Placement = place_adapters(adapters, hosts)
    rng, moves = random.Random(1), 0
    for _ in range(20):
        loads = {adapter.digest: 1.0 + 0.2 * rng.random() for adapter in adapters}
        after = place_adapters(adapters, hosts, PlacementView(loads, placed))
        moves += sum(placed[digest] != after[digest] for digest in placed)
        placed = after
    assert moves <= 3


def test_large_ranks_stand_apart_from_small_ones_where_replicas_allow() -> None:
    small, large = make_adapters(12), make_adapters(6, rank=64)
    placed = place_adapters([*small, *large], make_hosts(3, 8))
    on_small = {host for item in small for host in placed[item.digest]}
    on_large = {host for item in large for host in placed[item.digest]}
    assert not on_small & on_large
    assert len(on_small) == 2, "the group with more load gets more replicas"
    alone = place_adapters([*small, *large], make_hosts(1, 8))
    assert set(alone) == set(placed), "one replica carries both"


def test_neighbouring_ranks_share_when_there_are_more_classes_than_replicas() -> None:
    groups = {rank: make_adapters(5, rank=rank) for rank in (8, 16, 64)}
    placed = place_adapters([item for group in groups.values() for item in group], make_hosts(2, 6))
    where = {rank: {host for item in group for host in placed[item.digest]} for rank, group in groups.items()}
    assert where[8] == where[16]
    assert not where[16] & where[64]


def test_an_adapter_stays_where_it_answers_until_its_new_engine_has_it() -> None:
    before = {"r1": Holding({"a"}, {"a"}, 8), "r2": Holding(set(), set(), 8)}
    assert bridge_moves({"a": ["r2"]}, before) == {"r1": ["a"], "r2": ["a"]}
    assert bridge_moves({"a": ["r2"]}, before | {"r2": Holding({"a"}, {"a"}, 8)}) == {"r1": [], "r2": ["a"]}
    assert bridge_moves({}, before) == {"r1": [], "r2": []}, "nobody wants it any more"


def test_full_engines_that_wait_for_each_other_take_one_more() -> None:
    full = {"r1": Holding({"a", "b"}, {"a", "b"}, 2), "r2": Holding({"c", "d"}, {"c", "d"}, 2)}
    swapped = {"a": ["r2"], "b": ["r2"], "c": ["r1"], "d": ["r1"]}
    wanted = bridge_moves(swapped, full)
    assert {name: len(digests) for name, digests in wanted.items()} == {"r1": 3, "r2": 3}
    begun = {name: Holding(full[name].ready, set(digests), 2) for name, digests in wanted.items()}
    assert bridge_moves(swapped, begun) == wanted, "no second one beside it"


@given(seed=st.integers(0, 10_000), room=st.integers(1, 4))
def test_moves_end_at_their_goal_and_leave_no_adapter_without_an_engine(seed: int, room: int) -> None:
    rng, names = random.Random(seed), ["r0", "r1", "r2"]
    digests = [f"a{number}" for number in range(rng.randint(1, 3 * room))]
    ready: dict[str, set[str]] = {name: set() for name in names}
    begun: dict[str, set[str]] = {name: set() for name in names}
    for _goal in range(3):
        goal = {digest: rng.sample(names, rng.randint(1, 2)) for digest in digests}
        for _step in range(8 * len(digests)):
            holdings = {name: Holding(ready[name], begun[name], room) for name in names}
            wanted = {name: set(mine) for name, mine in bridge_moves(goal, holdings).items()}
            answered = {digest for mine in ready.values() for digest in mine}
            for name in names:
                fitting = max(room, sum(name in hosts for hosts in goal.values())) + 1
                assert len(wanted[name]) <= max(fitting, len(begun[name])), "one more than fits at most"
                begun[name], ready[name] = wanted[name], ready[name] & wanted[name]
            assert answered == {digest for mine in ready.values() for digest in mine}
            for name in names:
                ready[name] |= set(sorted(wanted[name] - ready[name])[:1])
        assert {digest: {name for name in names if digest in ready[name]} for digest in digests} == {
            digest: set(hosts) for digest, hosts in goal.items()
        }


def test_residency_is_least_recently_used_as_in_the_engine() -> None:
    mirror = Residency(2)
    for digest in ("a", "b", "a", "c"):
        mirror.touch(digest)
    assert mirror.resident(("a", "b", "c")) == {"a", "c"}
    assert mirror.resident(("c",)) == {"c"}, "what is not served there is not offered"
