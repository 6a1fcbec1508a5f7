"""Which adapters go onto which replicas of their base: pure functions; loading is left to the shelves.

Everywhere while all fit into the engines' slots. Else by rendezvous hash (Thaler and Ravishankar 1998) with bounded
load (Mirrokni, Thorup, Zadimoghaddam 2016), on as many replicas as an adapter's share of the load needs, and small
ranks apart from large ones, which slow them (arXiv 2511.22880).
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serving.contract import DesiredAdapter

_BOUND = 1.25
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)
Placement = dict[str, list[str]]


@dataclass(frozen=True)
class Host:
    """A ready replica and how many adapters it computes with at once."""

    replica_id: str
    slots: int


@dataclass(frozen=True)
class Holding:
    """What an engine has: adapters that answer, those and others that it was told to load, and how many it can keep."""

    ready: Collection[str]
    begun: Collection[str]
    room: int


@dataclass(frozen=True)
class PlacementView:
    """What the decision rests on beside adapters and hosts: load by digest, in any unit, and where each one is now."""

    loads: Mapping[str, float] = field(default_factory=dict)
    placed: Mapping[str, Collection[str]] = field(default_factory=dict)


def place_adapters(
    adapters: Sequence[DesiredAdapter], hosts: Sequence[Host], view: PlacementView | None = None
) -> Placement:
    """Replica ids by digest, for adapters of one base. An adapter stays where it is while that is not overloaded."""
    view = view or PlacementView()
    if all(len(adapters) <= host.slots for host in hosts):
        return {adapter.digest: sorted(host.replica_id for host in hosts) for adapter in adapters}
    placed: Placement = {}
    for group, its_hosts in _split_by_rank(adapters, hosts, view):
        placed |= _place_group(group, its_hosts, hosts, view)
    return placed


def bridge_moves(goal: Placement, holdings: Mapping[str, Holding]) -> dict[str, list[str]]:
    """Digests by replica id on the way to `goal`: one engine keeps an adapter until one of its new engines has it.

    A newcomer waits while what an engine keeps for others leaves no room; but one may come then, else engines that wait
    for each other would wait for ever.
    """
    keepers = {
        digest: min((name for name, holding in holdings.items() if digest in holding.ready), default=None)
        for digest, names in goal.items()
        if not any(digest in holdings[name].ready for name in names)
    }
    wanted: dict[str, list[str]] = {}
    for name, holding in holdings.items():
        mine = [digest for digest, names in goal.items() if name in names]
        kept = [digest for digest, keeper in keepers.items() if keeper == name]
        begun = [digest for digest in mine if digest in holding.begun]
        fresh = [digest for digest in mine if digest not in holding.begun]
        free = max(holding.room, len(mine)) - len(kept) - len(begun)
        wanted[name] = [*kept, *begun, *fresh[: max(0, free) or int(free == 0)]]
    return wanted


def _split_by_rank(
    adapters: Sequence[DesiredAdapter], hosts: Sequence[Host], view: PlacementView
) -> list[tuple[list[DesiredAdapter], list[Host]]]:
    """Rank classes onto disjoint hosts in proportion to their load; neighbouring classes share where hosts are few."""
    classes: dict[int, list[DesiredAdapter]] = defaultdict(list)
    for adapter in adapters:
        classes[_padded(adapter.rank)].append(adapter)
    groups = [classes[rank] for rank in sorted(classes)]
    while len(groups) > len(hosts):
        weights = [_total(group, view) for group in groups]
        first = min(range(len(groups) - 1), key=lambda index: weights[index] + weights[index + 1])
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    ordered = sorted(hosts, key=lambda host: host.replica_id)
    return list(zip(groups, _share_out(ordered, [_total(group, view) for group in groups]), strict=True))


def _share_out(hosts: list[Host], weights: Sequence[float]) -> list[list[Host]]:
    """At least one host each, the others one by one to whoever has most load a host."""
    counts = [1] * len(weights)
    for _ in range(len(hosts) - len(weights)):
        counts[max(range(len(weights)), key=lambda index: weights[index] / counts[index])] += 1
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [hosts[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _place_group(
    group: Sequence[DesiredAdapter], hosts: Sequence[Host], everywhere: Sequence[Host], view: PlacementView
) -> Placement:
    """Heaviest first; each on the first of its hosts by hash that stays under 1.25 of the mean load."""
    bound = _BOUND * _total(group, view) / len(hosts)
    is_scarce = len(group) > sum(host.slots for host in hosts)
    free = {host.replica_id: len(group) if is_scarce else host.slots for host in hosts}
    carried: dict[str, float] = {host.replica_id: 0.0 for host in everywhere}
    placed: Placement = {}
    for place, adapter in enumerate(sorted(group, key=lambda item: (-_load(item, view), item.digest)), 1):
        load, least = _load(adapter, view), max(1, adapter.min_replicas)
        spare = sum(max(0, left) for left in free.values()) - (len(group) - place)
        count = max(least, min(math.ceil(load / bound), spare, len(hosts)))
        ranked = _rank(adapter.digest, hosts, view)
        others = [host for host in _rank(adapter.digest, everywhere, view) if host not in ranked]
        fitting = [host for host in ranked if free[host] > 0 and carried[host] + load / count <= bound]
        crowded = sorted(set(ranked) - set(fitting), key=lambda host: (free[host] <= 0, carried[host], host))
        copies = [*fitting, *crowded, *others][: max(least, min(count, len(fitting)))]
        placed[adapter.digest] = sorted(copies)
        for host in copies:
            carried[host] += load / len(copies)
            free[host] = free.get(host, 0) - 1
    return placed


def _rank(digest: str, hosts: Sequence[Host], view: PlacementView) -> list[str]:
    """Where it is already first, then by hash."""
    now = view.placed.get(digest, ())
    names = [host.replica_id for host in hosts]
    return sorted(names, key=lambda name: (name not in now, rendezvous(digest, name)))


def rendezvous(key: str, replica_id: str) -> bytes:
    """Weight of a replica for a key: the lowest wins, and all others stay when a replica comes or goes."""
    return hashlib.blake2b(f"{key}/{replica_id}".encode(), digest_size=8).digest()


def _load(adapter: DesiredAdapter, view: PlacementView) -> float:
    """Nobody's load is nothing: adapters that are never called still spread."""
    return max(view.loads.get(adapter.digest, 0.0), 0.01 * max(view.loads.values(), default=1.0), 1e-9)


def _total(group: Sequence[DesiredAdapter], view: PlacementView) -> float:
    return sum(_load(adapter, view) for adapter in group)


def _padded(rank: int) -> int:
    """Engines compute with the next rank of this list."""
    return next((known for known in _LORA_RANKS if known >= rank), _LORA_RANKS[-1])
