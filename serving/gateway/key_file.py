"""The key file of a gateway that stands alone, in TOML: who may call, which models, how much, at what price.

    [prices]                      # fen for a million tokens; without it nothing is counted in money
    prompt = 200
    completion = 800

    [[keys]]                      # `guanmo gateway-key` adds one
    id = "…32 hex…"
    name = "line 7"
    mac = "…64 hex…"              # HMAC-SHA256 of the whole key with the pepper; the key itself is nowhere
    models = ["qwen"]             # all of these are optional: no limit where they are missing
    ip_ranges = ["10.0.0.0/8"]
    expires_at = 2027-01-01T00:00:00Z
    rpm = 60
    tpm = 100000
    concurrency = 4
    budget_fen = 5000
    scopes = ["inference", "ignore_eos"]

Serving by it is left to `local_hub`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from serving.contract import (
    SCOPE_INFERENCE,
    UFEN_PER_FEN,
    ContractError,
    Meter,
    ModelTarget,
    NamedModel,
    Snapshot,
    SnapshotKey,
    SnapshotModel,
    SnapshotPrice,
    Visibility,
)

_ORGANISATION = "org_local"
_PRICE_VERSION = "prc_local"
_PER_TOKENS = 1_000_000
_KEY_FIELDS = frozenset(
    {"id", "name", "mac", "models", "ip_ranges", "expires_at", "rpm", "tpm", "concurrency", "budget_fen", "scopes"}
)


class ModelSource(Protocol):
    """Whoever knows which models the replicas serve."""

    @property
    def models(self) -> Sequence[NamedModel]:
        """Return those that may be called now."""


class KeyFile:
    """One key file and the models behind it."""

    def __init__(self, path: Path, source: ModelSource) -> None:
        self._path = path
        self._source = source
        self._budgets: dict[str, int] = {}

    def read(self) -> bytes:
        """Return the file as it is now. Raises: ContractError when it cannot be read."""
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise ContractError("keys_unreadable", f"{self._path} cannot be read: {error.strerror}") from error

    def models(self) -> tuple[NamedModel, ...]:
        """Return what may be called now."""
        return tuple(self._source.models)

    def budget_ufen(self, budget_id: str | None) -> int | None:
        """Return the budget of a key in µfen, None without one."""
        return self._budgets.get(budget_id or "")

    def snapshot(self, text: bytes, *, version: int) -> Snapshot:
        """Return what the gateway admits by. Raises: ContractError naming the key and field at fault."""
        try:
            content = tomllib.loads(text.decode())
        except ValueError as error:
            raise ContractError("keys_unreadable", f"{self._path} is no TOML: {error}") from error
        for name in content:
            if name not in ("keys", "prices"):
                raise ContractError("unknown_field", f"{self._path} has {name!r}; it takes [[keys]] and [prices]")
        given = content.get("keys", [])
        keys = tuple(_key(entry, f"{self._path} keys[{number}]") for number, entry in enumerate(given))
        self._budgets = {
            key.key_id: entry["budget_fen"] * UFEN_PER_FEN
            for key, entry in zip(keys, given, strict=True)
            if "budget_fen" in entry
        }
        prices = content.get("prices", {})
        return Snapshot(
            version=version,
            issued_at=int(datetime.now(UTC).timestamp() * 1_000_000),
            keys=keys,
            models=tuple(_model(model) for model in self.models()),
            prices=tuple(
                SnapshotPrice(_PRICE_VERSION, meter, _whole(prices.get(meter.value, 0), meter.value), _PER_TOKENS)
                for meter in Meter
                if meter is not Meter.CACHED or meter.value in prices
            ),
            blocks=(),
        )


def digest_of(name: str) -> str:
    """Return what stands for the weights of a model that only its name is known of."""
    return hashlib.sha256(name.encode()).hexdigest()


def _key(entry: dict[str, Any], where: str) -> SnapshotKey:
    for name in entry:
        if name not in _KEY_FIELDS:
            known = ", ".join(sorted(_KEY_FIELDS))
            raise ContractError("unknown_field", f"{where} has {name!r}; a key takes {known}", field=name)
    for name in ("id", "mac"):
        if not isinstance(entry.get(name), str):
            raise ContractError(
                "missing_field", f"{where} needs {name}; make keys with 'guanmo gateway-key'", field=name
            )
    for name in ("rpm", "tpm", "concurrency", "budget_fen"):
        if name in entry:
            _whole(entry[name], f"{where} {name}")
    key_id = f"key_{entry['id']}"
    return SnapshotKey(
        key_id=key_id,
        mac=entry["mac"],
        pepper_id="local",
        organisation_id=_ORGANISATION,
        cost_centre=entry.get("name"),
        scopes=tuple(entry.get("scopes", (SCOPE_INFERENCE,))),
        models=tuple(entry["models"]) if "models" in entry else None,
        ip_ranges=_ranges(entry["ip_ranges"], where) if "ip_ranges" in entry else None,
        expires_at=_micros(entry["expires_at"], where) if "expires_at" in entry else None,
        revoked_at=None,
        rpm=entry.get("rpm"),
        tpm=entry.get("tpm"),
        concurrency=entry.get("concurrency"),
        budget_id=key_id,
    )


def _model(model: NamedModel) -> SnapshotModel:
    # A server that no pool started knows the model by its own name.
    upstream_name = model.name if model.digest == digest_of(model.name) else None
    return SnapshotModel(
        public_name=model.name,
        version_id=f"ver_{model.digest[:32]}",
        organisation_id=_ORGANISATION,
        owner_may_call=True,
        base_digest=model.base_digest,
        context_tokens=model.context_tokens,
        visibility=Visibility.PRIVATE,
        acl=(),
        price_version_id=_PRICE_VERSION,
        targets=(ModelTarget(f"ver_{model.digest[:32]}", model.digest, 1, upstream_name=upstream_name),),
        locality=None,
        retires_at=None,
        filing=None,
    )


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise ContractError("wrong_type", f"{where} is {value!r:.40}; it must be a whole number from 0")
    return value


def _ranges(values: Any, where: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise ContractError("wrong_type", f"{where} ip_ranges: {error}", field="ip_ranges") from error


def _micros(value: Any, where: str) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        text = f"{where} expires_at is {value!r:.40}; it must be a time with its zone such as 2027-01-01T00:00:00Z"
        raise ContractError("wrong_type", text, field="expires_at")
    return int(value.timestamp() * 1_000_000)
