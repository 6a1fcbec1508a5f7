"""Which replicas should run and which adapters go on which; pure functions; the controller carries it out."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from serving.contract import Desired, DesiredAdapter, ReplicaSet, Slot, Want

_RETIRE_MARGIN_US = 60_000_000


@dataclass(frozen=True)
class Planned:
    """One replica that should run now."""

    replica_set: ReplicaSet
    slot: Slot

    @property
    def replica_id(self) -> str:
        """Stable for a set on a slot, safe as a file name."""
        key = f"{self.replica_set.set_id}/{self.slot.slot_id}"
        return f"rep_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class SetLoad:
    """What gateways ask of one set: any call lately, and the longest wait in their queues now."""

    is_called: bool = False
    queue_wait_ms: int = 0


@dataclass(frozen=True)
class ReplicaPlan:
    """Replicas that should run, and slots that the hub is asked for."""

    replicas: tuple[Planned, ...]
    wants: tuple[Want, ...]


def live_adapters(desired: Desired, now_us: int) -> list[DesiredAdapter]:
    """Adapters that are still to be kept at `now_us`."""
    return [item for item in desired.adapters if item.keep_until is None or item.keep_until > now_us]


def goes_onto(adapter: DesiredAdapter, replica_set: ReplicaSet) -> bool:
    """Whether engines of the set are to load the adapter."""
    is_base = adapter.base_digest == replica_set.base_digest and replica_set.merged is None
    return is_base and not adapter.merged and replica_set.purpose in adapter.purposes


def plan_replicas(
    desired: Desired,
    loads: Mapping[str, SetLoad],
    *,
    running: Collection[str],
    ready: Collection[str],
    now_us: int,
) -> ReplicaPlan:
    """Choose slots for each set: enough for its minimum, its adapters and its callers, never above its maximum.

    `running` and `ready` are replica ids. A slot with `drain_by` gets nothing new; what runs there stays until its
    replacement is ready or the minute before `drain_by` begins.
    """
    planned: list[Planned] = []
    wants: list[Want] = []
    for replica_set in desired.replica_sets:
        load = loads.get(replica_set.set_id, SetLoad())
        count = _count_wanted(replica_set, live_adapters(desired, now_us), load)
        mine = [Planned(replica_set, slot) for slot in desired.slots if slot.set_id == replica_set.set_id]
        fresh = sorted(
            (item for item in mine if item.slot.drain_by is None),
            key=lambda item: (item.replica_id not in running, item.slot.slot_id),
        )
        chosen = fresh[:count]
        if count > len(fresh):
            wants.append(Want(replica_set.set_id, count - len(fresh), load.queue_wait_ms))
        ready_count = sum(item.replica_id in ready for item in chosen)
        retiring = [item for item in mine if item.slot.drain_by is not None and item.replica_id in running]
        if ready_count < count:
            chosen += [item for item in retiring if now_us < (item.slot.drain_by or 0) - _RETIRE_MARGIN_US]
        planned += chosen
    return ReplicaPlan(tuple(planned), tuple(wants))


def place_adapters(
    adapters: Sequence[DesiredAdapter], replica_ids: Collection[str], slots_of: Callable[[str], int]
) -> dict[str, list[str]]:
    """Adapters of one base onto its ready replicas: replica ids by digest.

    All on every replica while they fit into its slots; else each on its best replicas by rendezvous hash, and on one
    beyond its slots before none (the engine then swaps, slowly).
    """
    if all(len(adapters) <= slots_of(replica_id) for replica_id in replica_ids):
        return {adapter.digest: sorted(replica_ids) for adapter in adapters}
    free = {replica_id: slots_of(replica_id) for replica_id in replica_ids}
    placed: dict[str, list[str]] = {}
    for adapter in sorted(adapters, key=lambda item: item.digest):
        ranked = sorted(replica_ids, key=lambda replica_id: _rendezvous(adapter.digest, replica_id))
        fitting = [replica_id for replica_id in ranked if free[replica_id] > 0] or ranked[:1]
        placed[adapter.digest] = fitting[: max(1, adapter.min_replicas)]
        for replica_id in placed[adapter.digest]:
            free[replica_id] -= 1
    return placed


def _count_wanted(replica_set: ReplicaSet, adapters: Sequence[DesiredAdapter], load: SetLoad) -> int:
    for_adapters = [item.min_replicas for item in adapters if goes_onto(item, replica_set)]
    return min(max([replica_set.min, int(load.is_called), *for_adapters]), replica_set.max)


def _rendezvous(digest: str, replica_id: str) -> str:
    return hashlib.sha256(f"{digest}/{replica_id}".encode()).hexdigest()
