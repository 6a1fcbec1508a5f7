"""Sample keys, models and prices of the gateway tests; starting processes is left to `world`."""

import dataclasses
from typing import Any

from serving.contract import (
    Filing,
    Meter,
    ModelTarget,
    Peppers,
    Snapshot,
    SnapshotKey,
    SnapshotModel,
    SnapshotPrice,
    Visibility,
    key_mac,
)

PEPPER = b"pepper-for-tests"
PEPPERS = Peppers(PEPPER)
BASE = "b" * 64
ADAPTER = "a" * 64
OWNER, CUSTOMER = "org_owner", "org_customer"
PRICE = "prc_1"
# 3 fen and 7 fen per thousand tokens.
PRICES = (
    SnapshotPrice(PRICE, Meter.PROMPT, 3, 1000),
    SnapshotPrice(PRICE, Meter.COMPLETION, 7, 1000),
)


def secret_of(number: int) -> str:
    """Return the full API key number `number`."""
    return f"gm_{number:032x}_{'s' * 40}_-x"


def make_key(number: int, **changes: Any) -> SnapshotKey:
    """Return the record of key `number`, of the customer without limits."""
    key = SnapshotKey(
        key_id=f"key_{number:032x}",
        mac=key_mac(PEPPER, secret_of(number)),
        pepper_id="p1",
        organisation_id=CUSTOMER,
        cost_centre="line-7",
        scopes=("inference",),
        models=None,
        ip_ranges=None,
        expires_at=None,
        revoked_at=None,
        rpm=None,
        tpm=None,
        concurrency=None,
        budget_id=None,
    )
    return dataclasses.replace(key, **changes)


def make_model(public_name: str, digest: str = BASE, **changes: Any) -> SnapshotModel:
    """Return a filed public model of the owner."""
    version_id = f"ver_019a0000000070008000{len(public_name):012x}"
    model = SnapshotModel(
        public_name=public_name,
        version_id=version_id,
        organisation_id=OWNER,
        owner_may_call=True,
        base_digest=BASE,
        context_tokens=2048,
        visibility=Visibility.PUBLIC,
        acl=(),
        price_version_id=PRICE,
        targets=(ModelTarget(version_id, digest, 1),),
        locality=None,
        retires_at=None,
        filing=Filing("Demo base", "DEMO-备案-0001", None),
    )
    return dataclasses.replace(model, **changes)


def make_snapshot(*, keys: tuple[SnapshotKey, ...], models: tuple[SnapshotModel, ...], **changes: Any) -> Snapshot:
    """Return a snapshot, version 1, with the sample prices."""
    snapshot = Snapshot(version=1, issued_at=1, keys=keys, models=models, prices=PRICES, blocks=())
    return dataclasses.replace(snapshot, **changes)
