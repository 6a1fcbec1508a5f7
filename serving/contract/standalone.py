"""The two files of a pool without a hub: what it should run under which names, and where a gateway finds it.

Watching and writing them is left to `serving.pool` and `serving.gateway`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from serving.contract.errors import ContractError
from serving.contract.pool import DesiredAdapter, ReplicaSet, Routes, Slot

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_NAME_CHARS = 200


@dataclass(frozen=True)
class DesiredFile:
    """What a person wants running. `names` are public names by which callers ask for a base or an adapter: its digest.

    Epoch and generation of `Desired` are the controller's here.
    """

    replica_sets: tuple[ReplicaSet, ...]
    slots: tuple[Slot, ...]
    adapters: tuple[DesiredAdapter, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedModel:
    """A public name, what it stands for, and the tokens that prompt and answer may have together."""

    name: str
    digest: str
    base_digest: str
    context_tokens: int


@dataclass(frozen=True)
class RoutesFile:
    """What a gateway routes and admits by. `pool_url` is where the controller takes demand."""

    routes: Routes
    models: tuple[NamedModel, ...]
    pool_url: str


def check_desired(wanted: DesiredFile) -> None:
    """Refuse what a pool could not act on. Raises: ContractError with the path of the value at fault."""
    _check_unique("replica_sets", "set_id", [one.set_id for one in wanted.replica_sets])
    _check_unique("slots", "slot_id", [slot.slot_id for slot in wanted.slots])
    _check_unique("adapters", "digest", [adapter.digest for adapter in wanted.adapters])
    for number, replica_set in enumerate(wanted.replica_sets):
        _check_set(replica_set, f"replica_sets[{number}]")
    sets = {one.set_id for one in wanted.replica_sets}
    for number, slot in enumerate(wanted.slots):
        _check_known(slot.set_id, sets, f"slots[{number}].set_id", "a set_id of replica_sets")
        _check_least(slot.allocation_epoch, 1, f"slots[{number}].allocation_epoch")
    for number, adapter in enumerate(wanted.adapters):
        _check_adapter(adapter, wanted.replica_sets, f"adapters[{number}]")
    digests = {one.base_digest for one in wanted.replica_sets} | {adapter.digest for adapter in wanted.adapters}
    for name, digest in wanted.names.items():
        if not name.isprintable() or not 0 < len(name.strip()) <= _MOST_NAME_CHARS:
            text = f"names has {name!r:.80}; a name has 1 to {_MOST_NAME_CHARS} printable characters"
            raise ContractError("bad_name", text, field="names")
        _check_known(digest, digests, f"names.{name}", "the digest of a base or of an adapter in this file")


def _check_set(replica_set: ReplicaSet, path: str) -> None:
    _check_digest(replica_set.base_digest, f"{path}.base_digest")
    for name in ("merged", "weights_folder"):
        value = getattr(replica_set, name)
        if value is not None:
            _check_digest(value, f"{path}.{name}")
    for name in ("min", "max_loras", "idle_s"):
        _check_least(getattr(replica_set, name), 0, f"{path}.{name}")
    _check_least(replica_set.max, max(1, replica_set.min), f"{path}.max")
    if replica_set.max_loras:
        _check_least(replica_set.max_lora_rank, 1, f"{path}.max_lora_rank")


def _check_adapter(adapter: DesiredAdapter, sets: Collection[ReplicaSet], path: str) -> None:
    _check_digest(adapter.digest, f"{path}.digest")
    _check_least(adapter.rank, 1, f"{path}.rank")
    _check_least(adapter.min_replicas, 0, f"{path}.min_replicas")
    if adapter.merged:
        _check_known(adapter.digest, {one.merged for one in sets}, f"{path}.digest", "`merged` of one of replica_sets")
        return
    hosts = [one for one in sets if one.merged is None and one.max_loras and one.purpose in adapter.purposes]
    bases = {one.base_digest for one in hosts}
    what = "the base of a set with max_loras and one of its purposes"
    _check_known(adapter.base_digest, bases, f"{path}.base_digest", what)
    largest = max(one.max_lora_rank for one in hosts if one.base_digest == adapter.base_digest)
    if adapter.rank > largest:
        text = f"{path}.rank is {adapter.rank}, above max_lora_rank {largest} of the sets on its base; raise that"
        raise ContractError("out_of_range", text, field=f"{path}.rank")


def _check_unique(path: str, name: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value in seen or not value:
            text = f"{path}[{number}].{name} is {value!r:.80}; each needs one of its own"
            raise ContractError("not_unique", text, field=f"{path}[{number}].{name}")
        seen.add(value)


def _check_digest(value: str, path: str) -> None:
    if not _DIGEST.fullmatch(value):
        text = f"{path} is {value!r:.80}; it must be 64 lower-case hex characters"
        raise ContractError("bad_digest", text, field=path)


def _check_least(value: int, least: int, path: str) -> None:
    if value < least:
        raise ContractError("out_of_range", f"{path} is {value}; it must be {least} or more", field=path)


def _check_known(value: str, known: Collection[str | None], path: str, what: str) -> None:
    if value not in known:
        raise ContractError("unknown_value", f"{path} is {value!r:.80}; it must be {what}", field=path)
