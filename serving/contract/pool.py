"""Messages between the pool controller, the hub and the gateway.

Times are integer µs UTC, `None` where there is none. How the controller starts, places and drains is left to
`serving.pool`.

HTTP (JSON, `contract_version` 1, long polls answer 204 when nothing changed within `wait_s`):
    POST {hub}/internal/v1/pool/lead      Lead -> LeadGrant
    GET  {hub}/internal/v1/pool/desired?after=GENERATION&wait_s=20 -> Desired
    PUT  {hub}/internal/v1/pool/observed  Observed -> LeadGrant (409: wrong epoch)
    GET  {pool}/routes?after=VERSION&wait_s=20 -> Routes
    POST {pool}/demand                    Demand -> 204
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Purpose(StrEnum):
    """What a replica set is for; only `serve` replicas appear in routes."""

    SERVE = "serve"
    EVALUATE = "evaluate"
    REVIEW = "review"


class Task(StrEnum):
    """What engines of a set compute."""

    GENERATE = "generate"
    EMBED = "embed"


class ReplicaState(StrEnum):
    """Life of one engine process; `ready` only after the long warm-up prompt."""

    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class AdapterState(StrEnum):
    """Life of one adapter over all replicas of its base."""

    FETCHING = "fetching"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Lead:
    """A controller asks to be the active one."""

    controller_id: str


@dataclass(frozen=True)
class LeadGrant:
    """The controller holds `epoch` until `valid_until`; each observed message renews it."""

    epoch: int
    valid_until: int


@dataclass(frozen=True)
class ReplicaSet:
    """Interchangeable engine processes on one base; `engine_args` are long option names without dashes.

    Without a call for `idle_s` it shrinks to `min`. The last that is deployed on it ends at `keep_until`: `idle_s`
    after that `min` counts no more. `merged` is the adapter that the weights at `uri` carry; such a folder has a digest
    of its own, `weights_folder`, instead of the base's.
    """

    set_id: str
    base_digest: str
    uri: str
    engine: str
    purpose: Purpose
    min: int
    max: int
    max_loras: int
    max_lora_rank: int
    engine_args: Mapping[str, str | int | float | bool]
    task: Task = Task.GENERATE
    idle_s: int = 600
    merged: str | None = None
    weights_folder: str | None = None
    keep_until: int | None = None


@dataclass(frozen=True)
class Slot:
    """Devices granted to one replica set; empty by `drain_by` when that is set."""

    slot_id: str
    set_id: str
    node_id: str
    devices: tuple[str, ...]
    allocation_epoch: int
    drain_by: int | None = None


@dataclass(frozen=True)
class DesiredAdapter:
    """An adapter that the hub wants loaded; `uri` is a folder named by `digest`.

    It goes onto engines of sets with one of `purposes`; `merged` ones are not loaded: a set has them in its weights.
    """

    digest: str
    base_digest: str
    uri: str
    rank: int
    min_replicas: int
    keep_until: int | None = None
    merged: bool = False
    purposes: tuple[Purpose, ...] = (Purpose.SERVE,)


@dataclass(frozen=True)
class Desired:
    """Everything the hub wants running; `reset` false (changes only) is reserved."""

    epoch: int
    generation: int
    replica_sets: tuple[ReplicaSet, ...]
    slots: tuple[Slot, ...]
    adapters: tuple[DesiredAdapter, ...]
    reset: bool = True
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedReplica:
    """One engine process as seen by the controller; `device_ms` only grows."""

    replica_id: str
    replica_epoch: int
    set_id: str
    slot_id: str
    allocation_epoch: int
    url: str
    state: ReplicaState
    reason_code: str | None
    since_at: int
    device_ms: int


@dataclass(frozen=True)
class ObservedAdapter:
    """Where an adapter answers; `ready_on` are replica ids that passed its warm-up.

    `share_percent` is its part of what is asked of its base lately. `speed_up_percent` is how fast merged weights would
    be, 100 being the adapter in a slot, as measured on its engine; None until it was hot enough to be measured.
    """

    digest: str
    ready_on: tuple[str, ...]
    state: AdapterState
    reason_code: str | None = None
    share_percent: int = 0
    speed_up_percent: int | None = None


@dataclass(frozen=True)
class Want:
    """More slots asked for, with the queue wait that justifies it."""

    set_id: str
    slots: int
    queue_wait_ms: int


@dataclass(frozen=True)
class Observed:
    """What runs; sent on change, else every 5 s."""

    epoch: int
    generation_seen: int
    replicas: tuple[ObservedReplica, ...]
    adapters: tuple[ObservedAdapter, ...]
    wants: tuple[Want, ...] = ()


@dataclass(frozen=True)
class RouteReplica:
    """A replica that a gateway may call; `url` without a trailing `/v1`.

    `max_loras` is how many adapters it computes with at once, 0 for none; with `merged` it is that adapter alone.
    """

    id: str
    epoch: int
    url: str
    base_digest: str
    draining: bool
    max_loras: int = 0
    merged: str | None = None


@dataclass(frozen=True)
class Routes:
    """Ready serve replicas; adapters may be called on `placement[digest]`, best on `resident[digest]`.

    A base model is served by every replica of its `base_digest` and needs no placement entry. `expected` says by base
    digest when a replica that is starting will probably be ready.
    """

    version: int
    replicas: tuple[RouteReplica, ...]
    placement: Mapping[str, tuple[str, ...]]
    resident: Mapping[str, tuple[str, ...]]
    expected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DemandRow:
    """Load of one artifact (adapter or base digest) at one gateway."""

    digest: str
    in_flight: int
    queued: int
    queue_wait_ms: int


@dataclass(frozen=True)
class Demand:
    """All rows of one gateway, once a second; digests without load are left out."""

    gateway_id: str
    rows: tuple[DemandRow, ...]
