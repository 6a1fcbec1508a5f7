"""All replicas of this controller brought to a desired state; talking to hub and gateways is left to the controller."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serving.contract import (
    AdapterState,
    Desired,
    DesiredAdapter,
    ObservedAdapter,
    ObservedReplica,
    ReplicaSet,
    ReplicaState,
    Want,
)
from serving.launch import ProcessState
from serving.pool.adapter_folders import AdapterFolders
from serving.pool.adapter_placement import Holding, Host, Placement, PlacementView, bridge_moves, place_adapters
from serving.pool.demand import DemandBoard
from serving.pool.engine_client import EngineClient
from serving.pool.engine_command import count_kept
from serving.pool.engine_process import planned_of
from serving.pool.gain import GainMeter
from serving.pool.placement import (
    Planned,
    SetLoad,
    goes_onto,
    is_ended,
    is_same_engine,
    is_same_place,
    let_go_of_ended,
    live_adapters,
    plan_replicas,
)
from serving.pool.replica import Replica, Workshop
from serving.pool.scaling import Scaler

_PROGRESS = (AdapterState.WARMING, AdapterState.LOADING)
_log = logging.getLogger(__name__)


class Fleet:
    """Owns the replicas. Everything here runs on one event loop and never waits."""

    def __init__(self, shop: Workshop, folders: AdapterFolders, gains: GainMeter) -> None:
        self._shop = shop
        self._folders = folders
        self._gains = gains
        self._live: dict[str, Replica] = {}
        self._stopped: list[tuple[float, ObservedReplica]] = []
        self._adapters: list[DesiredAdapter] = []
        self._placement: dict[str, Placement] = {}
        self._scaler = Scaler(time.monotonic)
        self._found: set[str] = set()
        self._found_at = time.monotonic()
        self.wants: tuple[Want, ...] = ()

    def adopt_found(self) -> None:
        """Take over engines that an earlier controller left running, and forget those that ended."""
        for handle in self._shop.launch.list_mine():
            if not handle.pid:
                self._shop.launch.abandon(handle)  # its controller ended before it was started
                continue
            observed = self._shop.launch.poll(handle)
            if observed.state is ProcessState.RUNNING:
                planned = planned_of(handle)
                _log.info("replica %s: found running as pid %d", planned.replica_id, handle.pid)
                self._live[planned.replica_id] = Replica(planned, self._shop, adopted=handle)
                self._found.add(planned.replica_id)
            else:
                if observed.ended_at is not None:
                    ended_us = int(observed.ended_at.timestamp() * 1_000_000)
                    self._shop.memory.mark_ended(handle.labels["replica_id"], int(handle.labels["epoch"]), ended_us)
                self._shop.launch.fence(handle)
                self._shop.launch.forget(handle)

    def replicas(self) -> list[Replica]:
        """Replicas that are not stopped yet."""
        return list(self._live.values())

    def living(self) -> dict[tuple[str, int], EngineClient]:
        """Engines whose process is started, by replica id and epoch."""
        started = [replica for replica in self._live.values() if replica.process.is_started()]
        return {(replica.replica_id, replica.process.epoch): replica.engine for replica in started}

    def apply(self, desired: Desired, demand: DemandBoard) -> None:
        """Start, stop and fill replicas as desired and asked for; call it on every change and once a second."""
        self._drop_stopped()
        now_us = time.time_ns() // 1000
        desired = let_go_of_ended(desired, now_us)
        ready = {name for name, replica in self._live.items() if replica.state is ReplicaState.READY}
        loads = self._wish(desired, demand.loads(desired))
        unmoved = self._hand_over(desired, now_us)
        plan = plan_replicas(desired, loads, running=self._live.keys(), ready=ready, unmoved=unmoved, now_us=now_us)
        self.wants = plan.wants
        planned = {item.replica_id: item for item in plan.replicas}
        for name, replica in self._live.items():
            if name not in planned:
                replica.stop()
            elif is_same_engine(planned[name], replica.planned):
                replica.planned = planned[name]
            elif self._may_restart(name, planned):
                replica.stop()
        for name, item in planned.items():
            if name not in self._live:
                self._live[name] = Replica(item, self._shop)
        self._fill(desired, demand, now_us)

    def stand_by(self, desired: Desired, demand: DemandBoard) -> None:
        """Leave engines alone, as whoever does not lead must, but for those whose slot is to be empty by now."""
        self._drop_stopped()
        now_us = time.time_ns() // 1000
        ended = {(slot.slot_id, slot.allocation_epoch) for slot in desired.slots if is_ended(slot, now_us)}
        for replica in self._live.values():
            if (replica.planned.slot.slot_id, replica.planned.slot.allocation_epoch) in ended:
                replica.stop(regardless=True)
        self._fill(desired, demand, now_us)

    def observe_replicas(self) -> tuple[ObservedReplica, ...]:
        """All replicas, those that stopped lately included."""
        self._drop_stopped()
        live = [replica.observe() for replica in self._live.values()]
        return tuple(live + [item for _at, item in self._stopped if item.replica_id not in self._live])

    def observe_adapters(self) -> tuple[ObservedAdapter, ...]:
        """Desired adapters with the replicas where they answer, and what merging them would gain."""
        return tuple(self._add_gain(self._observe_adapter(adapter), adapter) for adapter in self._adapters)

    def find_unmeasured(self) -> list[tuple[str, EngineClient]]:
        """Return hot adapters in slots whose gain by merging is unknown, each with an engine where it answers."""
        due = [item.digest for item in self._adapters if self._gains.is_due(item.digest, self._family(item))]
        found = []
        for digest in due:
            hosts = [one for one in self._live.values() if digest in one.shelf.ready_digests()]
            ready = [one for one in hosts if one.state is ReplicaState.READY and not one.is_stopping()]
            found += [(digest, one.engine) for one in ready[:1]]
        return found

    async def stop_all(self) -> None:
        """Drain and end every replica."""
        for task in [replica.stop() for replica in self._live.values()]:
            await task

    async def leave_all(self) -> None:
        """Let the engines run on without us."""
        for replica in self._live.values():
            await replica.leave()

    def _fill(self, desired: Desired, demand: DemandBoard, now_us: int) -> None:
        self._adapters = live_adapters(desired, now_us)
        self._place_adapters(demand.sample())
        self._note_uses(demand.called_now())

    def _drop_stopped(self) -> None:
        now = time.monotonic()
        for name in [name for name, replica in self._live.items() if replica.state is ReplicaState.STOPPED]:
            self._stopped.append((now, self._live.pop(name).observe()))
        keep_s = self._shop.timing.stopped_report_s
        self._stopped = [(at, item) for at, item in self._stopped if now - at < keep_s]

    def _wish(self, desired: Desired, loads: Mapping[str, SetLoad]) -> dict[str, SetLoad]:
        """Loads with the number of replicas that each set should have."""
        wished = {}
        for one in desired.replica_sets:
            load = loads[one.set_id]
            mine = [replica for replica in self._live.values() if replica.planned.replica_set.set_id == one.set_id]
            waits = [replica.queue_wait_ms for replica in mine if replica.state is ReplicaState.READY]
            wait_ms = max([load.queue_wait_ms, min(waits, default=0)])
            is_called = load.is_called or self._may_be_called(one, mine)
            count = self._scaler.wish(
                one, queue_wait_ms=wait_ms, is_called=is_called, ready=len(waits), running=len(mine)
            )
            wished[one.set_id] = SetLoad(is_called, wait_ms, count)
        return wished

    def _may_be_called(self, replica_set: ReplicaSet, mine: Sequence[Replica]) -> bool:
        """Engines found running count as called for as long as a call would count: who called them is not known."""
        is_found = any(replica.replica_id in self._found for replica in mine)
        return is_found and time.monotonic() - self._found_at < replica_set.idle_s

    def _may_restart(self, name: str, planned: Mapping[str, Planned]) -> bool:
        """Other options come to one engine of a set after the other, so that the rest of them answers meanwhile.

        An engine that does not answer anyway is not waited for, nor one whose slot was given away.
        """
        replica, wanted = self._live[name], planned[name]
        if replica.state is not ReplicaState.READY or not is_same_place(wanted, replica.planned):
            return True
        set_id = wanted.replica_set.set_id
        peers = [other for other, one in planned.items() if one.replica_set.set_id == set_id and other != name]
        return all(self._is_serving(peer) for peer in peers)

    def _hand_over(self, desired: Desired, now_us: int) -> set[str]:
        """Let engines on places that end leave their adapters to others; returns those whose others lack some yet."""
        ending = {slot.slot_id for slot in desired.slots if slot.drain_by is not None}
        wanted = {item.digest for item in live_adapters(desired, now_us)}
        stay = [one for name, one in self._live.items() if self._is_serving(name) and _place_of(one) not in ending]
        unmoved = set()
        for name, replica in self._live.items():
            set_id = replica.planned.replica_set.set_id
            peers = [one for one in stay if one.planned.replica_set.set_id == set_id]
            replica.is_leaving = _place_of(replica) in ending and bool(peers)
            moved = {digest for peer in peers for digest in peer.shelf.ready_digests()}
            if replica.is_leaving and not replica.shelf.ready_digests() & wanted <= moved:
                unmoved.add(name)
        return unmoved

    def _is_serving(self, name: str) -> bool:
        found = self._live.get(name)
        return found is not None and found.state is ReplicaState.READY and not found.is_stopping()

    def _place_adapters(self, activity: Mapping[str, float]) -> None:
        self._folders.want(item for item in self._adapters if not item.merged)
        wanted: dict[str, dict[str, Path]] = {name: {} for name in self._live}
        sets = {replica.planned.replica_set.set_id: replica.planned.replica_set for replica in self._live.values()}
        for replica_set in sets.values():
            for name, digests in self._place_in_set(replica_set, activity).items():
                wanted[name] = {digest: self._folders.folders[digest] for digest in digests}
        for name, replica in self._live.items():
            if not replica.is_stopping():
                replica.want_adapters(wanted[name])

    def _place_in_set(self, replica_set: ReplicaSet, activity: Mapping[str, float]) -> dict[str, list[str]]:
        """Digests by replica id; on an engine that is still to be restarted for a larger rank, none of such a rank."""
        set_id = replica_set.set_id
        fetched = [item for item in self._adapters if goes_onto(item, replica_set) and self._has_folder(item)]
        able = {name: one for name, one in self._live.items() if _can_host(one, set_id)}
        hosts = [Host(name, replica_set.max_loras) for name in able]
        view = PlacementView(activity, self._placement.get(set_id, {}))
        self._placement[set_id] = place_adapters(fetched, hosts, view) if hosts else {}
        ranks = {item.digest: item.rank for item in fetched}
        holdings = {name: _holding_of(one, ranks) for name, one in able.items()}
        return {
            name: [digest for digest in digests if ranks[digest] <= able[name].planned.replica_set.max_lora_rank]
            for name, digests in bridge_moves(self._placement[set_id], holdings).items()
        }

    def _note_uses(self, called: frozenset[str]) -> None:
        for replica in self._live.values():
            for digest in replica.shelf.ready_digests() & called:
                replica.residency.touch(digest)

    def _has_folder(self, adapter: DesiredAdapter) -> bool:
        return adapter.digest in self._folders.folders

    def _family(self, adapter: DesiredAdapter) -> set[str]:
        base = adapter.base_digest
        return {base} | {item.digest for item in self._adapters if item.base_digest == base}

    def _add_gain(self, observed: ObservedAdapter, adapter: DesiredAdapter) -> ObservedAdapter:
        """In steps of 5 %, because every change is told to the hub."""
        gain = self._gains.read(adapter.digest, self._family(adapter))
        speed_up = None if gain.speed_up is None else 5 * round(20 * gain.speed_up)
        return replace(observed, share_percent=5 * round(20 * gain.share), speed_up_percent=speed_up)

    def _observe_adapter(self, adapter: DesiredAdapter) -> ObservedAdapter:
        digest = adapter.digest
        merged = [one for one in self._live.values() if one.planned.replica_set.merged == digest]
        carrying = tuple(one.replica_id for one in merged if one.state is ReplicaState.READY)
        shelved = [
            (replica, replica.shelf.states()[digest])
            for replica in self._live.values()
            if replica.state is ReplicaState.READY and digest in replica.shelf.states()
        ]
        ready_on = tuple(replica.replica_id for replica, item in shelved if item.state is AdapterState.READY)
        if ready_on or carrying:
            return ObservedAdapter(digest, (*ready_on, *carrying), AdapterState.READY)
        if not self._has_folder(adapter):
            failure = self._folders.failure(digest)
            return ObservedAdapter(digest, (), AdapterState.FAILED if failure else AdapterState.FETCHING, failure)
        for state in _PROGRESS:
            if any(item.state is state for _replica, item in shelved):
                return ObservedAdapter(digest, (), state)
        if shelved:
            return ObservedAdapter(digest, (), AdapterState.FAILED, shelved[0][1].reason_code)
        return ObservedAdapter(digest, (), AdapterState.LOADING, "no_ready_replica")


def _can_host(replica: Replica, set_id: str) -> bool:
    replica_set = replica.planned.replica_set
    is_ready = replica.state is ReplicaState.READY and not replica.is_leaving
    return is_ready and replica_set.set_id == set_id and replica_set.max_loras > 0


def _place_of(replica: Replica) -> str:
    return replica.planned.slot.slot_id


def _holding_of(replica: Replica, digests: Collection[str]) -> Holding:
    shelf = replica.shelf
    found = {digest for digest in digests if shelf.was_found_with(digest)}  # only a warm-up is missing there
    room = count_kept(replica.planned.replica_set)
    return Holding(shelf.ready_digests() | found, shelf.states().keys() | found, room)
