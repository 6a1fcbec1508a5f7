"""The hub's snapshot for gateways: keys, models, prices and blocks.

Times are integer µs UTC, `None` where there is none. Applying the rules is left to `serving.gateway`.

HTTP: GET {hub}/internal/v1/snapshot?after=VERSION&wait_s=20 -> Snapshot, 204 when nothing changed within `wait_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SCOPE_INFERENCE = "inference"
# Lets a key send `ignore_eos`, which benches need and which makes a request cost its whole max_tokens.
SCOPE_IGNORE_EOS = "ignore_eos"


class Visibility(StrEnum):
    """Who may see and call a model besides its owner."""

    PRIVATE = "private"
    ACL = "acl"
    PUBLIC = "public"


class Meter(StrEnum):
    """What a price counts; `cached` tokens are part of the prompt tokens."""

    PROMPT = "prompt"
    CACHED = "cached"
    COMPLETION = "completion"


class SubjectKind(StrEnum):
    """What a block names: base or adapter by digest, model by public name or version id, organisation by id."""

    BASE = "base"
    ADAPTER = "adapter"
    MODEL = "model"
    ORGANISATION = "organisation"


class BlockScope(StrEnum):
    """`public` stops every organisation but the model's owner, `all` stops the owner too."""

    PUBLIC = "public"
    ALL = "all"


class InFlight(StrEnum):
    """What happens to running requests when a block begins."""

    FINISH = "finish"
    CUT = "cut"


@dataclass(frozen=True)
class SnapshotKey:
    """One API key. `mac` is `key_mac(pepper, key)` with the pepper of `pepper_id`.

    The scope `inference` lets it call models.

    `None` for models, ip_ranges, rpm, tpm, concurrency is no limit.
    """

    key_id: str
    mac: str
    pepper_id: str
    organisation_id: str
    cost_centre: str | None
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    ip_ranges: tuple[str, ...] | None
    expires_at: int | None
    revoked_at: int | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    budget_id: str | None


@dataclass(frozen=True)
class ModelTarget:
    """One version behind a public name; a digest equal to the base digest is the base itself.

    `upstream_name` is what the engine calls it where that does not follow from the digest.
    """

    version_id: str
    digest: str
    weight: int
    upstream_name: str | None = None


@dataclass(frozen=True)
class Filing:
    """The filing (备案) that the model is served under."""

    name: str
    number: str
    valid_until: int | None


@dataclass(frozen=True)
class SnapshotModel:
    """One public name. `organisation_id` owns it.

    `owner_may_call`: the owner may call without a valid filing. `context_tokens` is the engine's limit of prompt plus
    completion; reservations rest on it. `filing` None: never filed, nobody but the owner may call. `successor`: what
    to call once it retired.
    """

    public_name: str
    version_id: str
    organisation_id: str
    owner_may_call: bool
    base_digest: str
    context_tokens: int
    visibility: Visibility
    acl: tuple[str, ...]
    price_version_id: str
    targets: tuple[ModelTarget, ...]
    locality: str | None
    retires_at: int | None
    filing: Filing | None
    successor: str | None = None


@dataclass(frozen=True)
class SnapshotPrice:
    """`amount_fen` for each `per_units` tokens of one meter."""

    price_version_id: str
    meter: Meter
    amount_fen: int
    per_units: int

    def __hash__(self) -> int:
        """Hash the version alone: every request looks its prices up, and an enum's own hash is slow."""
        return hash(self.price_version_id)


@dataclass(frozen=True)
class Block:
    """A stop that holds from `from_at`; `code` and messages reach the caller."""

    subject_kind: SubjectKind
    subject: str
    scope: BlockScope
    in_flight: InFlight
    code: str
    message_zh: str
    message_en: str
    from_at: int


@dataclass(frozen=True)
class Snapshot:
    """Everything a gateway needs to admit requests; `reset` false (changes only) is reserved."""

    version: int
    issued_at: int
    keys: tuple[SnapshotKey, ...]
    models: tuple[SnapshotModel, ...]
    prices: tuple[SnapshotPrice, ...]
    blocks: tuple[Block, ...]
    reset: bool = True
    deleted: tuple[str, ...] = ()
