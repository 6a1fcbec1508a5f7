"""Messages of the second witness: what engines counted, from the pool controller to the hub.

HTTP (JSON, `contract_version` 1, bearer token of the pool):
    POST {hub}/internal/v1/witness  WitnessBatch -> 200
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Witness:
    """Tokens of one request as counted inside the engine; `seq` counts from 1 in each epoch of a replica.

    `prompt_tokens` counts the prompt of every choice, as the engine does; `told_prompt_tokens` and its cached part
    count it once, as answers do. A gateway's request names its allowance, key and version; warm-ups and proofs name
    none. `cut`: the engine died.
    """

    replica_id: str
    replica_epoch: int
    seq: int
    request_id: str
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    told_prompt_tokens: int
    told_cached_tokens: int
    allowance_id: str | None = None
    key_id: str | None = None
    version_id: str | None = None
    cut: bool = False


@dataclass(frozen=True)
class EngineReading:
    """The engine's own counters at a moment when nothing ran in it and its rows up to `through_seq` were all there."""

    replica_id: str
    replica_epoch: int
    through_seq: int
    prompt_tokens: int
    completion_tokens: int
    read_at: int


@dataclass(frozen=True)
class WitnessBatch:
    """At most 500 rows, in the order of each replica's `seq`; sending a row again changes nothing."""

    rows: tuple[Witness, ...]
    readings: tuple[EngineReading, ...] = ()
