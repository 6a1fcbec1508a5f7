"""Which replicas should run: pure functions; adapters are left to `adapter_placement`, acting to the fleet."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from serving.contract import Desired, DesiredAdapter, ReplicaSet, Slot, Want

_RETIRE_MARGIN_US = 60_000_000
"""What a drain may take: notice to gateways, running calls, the engine's own end (51 s, `Timing`)."""


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
    """What is asked of one set: any call lately, the longest wait in queues now, and the replicas wished for it."""

    is_called: bool = False
    queue_wait_ms: int = 0
    wished: int = 0


@dataclass(frozen=True)
class ReplicaPlan:
    """Replicas that should run, and slots that the hub is asked for."""

    replicas: tuple[Planned, ...]
    wants: tuple[Want, ...]


def live_adapters(desired: Desired, now_us: int) -> list[DesiredAdapter]:
    """Adapters that are still to be kept at `now_us`."""
    return [item for item in desired.adapters if item.keep_until is None or item.keep_until > now_us]


def let_go_of_ended(desired: Desired, now_us: int) -> Desired:
    """Desired state whose sets have no minimum once all on them ended and they were warm for `idle_s`."""
    return replace(desired, replica_sets=tuple(_without_minimum(one, now_us) for one in desired.replica_sets))


def _without_minimum(replica_set: ReplicaSet, now_us: int) -> ReplicaSet:
    ends_at = replica_set.keep_until
    has_ended = ends_at is not None and now_us >= ends_at + replica_set.idle_s * 1_000_000
    return replace(replica_set, min=0) if has_ended else replica_set


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
    unmoved: Collection[str] = (),
    now_us: int,
) -> ReplicaPlan:
    """Choose slots for each set: enough for its minimum, its adapters and its callers, never above its maximum.

    `running`, `ready` and `unmoved` are replica ids. A slot with `drain_by` gets nothing new; what runs there stays
    until its replacement is ready and has its adapters (until then it is `unmoved`), or the minute before `drain_by`.
    """
    planned: list[Planned] = []
    wants: list[Want] = []
    for replica_set in desired.replica_sets:
        load = loads.get(replica_set.set_id, SetLoad())
        count = _count_wanted(replica_set, live_adapters(desired, now_us), load)
        mine = [Planned(replica_set, slot) for slot in desired.slots if slot.set_id == replica_set.set_id]
        fresh = sorted(
            (item for item in mine if item.slot.drain_by is None),
            key=lambda item: (item.replica_id not in ready, item.replica_id not in running, item.slot.slot_id),
        )
        chosen = fresh[:count]
        if count > len(fresh):
            wants.append(Want(replica_set.set_id, count - len(fresh), load.queue_wait_ms))
        ready_count = sum(item.replica_id in ready for item in chosen)
        retiring = [item for item in mine if item.slot.drain_by is not None and item.replica_id in running]
        needed = [item for item in retiring if ready_count < count or (count and item.replica_id in unmoved)]
        chosen += [item for item in needed if not is_ended(item.slot, now_us)]
        planned += chosen
    return ReplicaPlan(tuple(planned), tuple(wants))


def _count_wanted(replica_set: ReplicaSet, adapters: Sequence[DesiredAdapter], load: SetLoad) -> int:
    for_adapters = [item.min_replicas for item in adapters if goes_onto(item, replica_set)]
    return min(max([replica_set.min, int(load.is_called), load.wished, *for_adapters]), replica_set.max)


def is_ended(slot: Slot, now_us: int) -> bool:
    """Whether the minute before `drain_by` has begun."""
    return slot.drain_by is not None and now_us >= slot.drain_by - _RETIRE_MARGIN_US


def is_same_engine(wanted: Planned, running: Planned) -> bool:
    """Whether what runs may stay; numbers of replicas and purpose may change without a restart."""
    return _engine_identity(wanted) == _engine_identity(running)


def is_same_place(wanted: Planned, running: Planned) -> bool:
    """Whether the slot is still the one that the engine was started on."""
    return _place(wanted.slot) == _place(running.slot)


def _engine_identity(planned: Planned) -> tuple[object, ...]:
    one = planned.replica_set
    arguments = tuple(sorted((name, repr(value)) for name, value in one.engine_args.items()))
    lora = (one.max_loras, one.max_lora_rank)
    model = (one.base_digest, one.uri, one.merged, one.engine, one.task)
    return (model, lora, arguments, _place(planned.slot))


def _place(slot: Slot) -> tuple[object, ...]:
    return (slot.devices, slot.allocation_epoch)
