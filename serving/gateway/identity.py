"""Which gateway this is and how often it has started, kept beside its journal.

The hub tells gateways apart by the id and their lives by the epoch.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

_FILE = "gateway.json"


@dataclass(frozen=True)
class Identity:
    """`epoch` is 1 at the first start in a folder and grows with each."""

    gateway_id: str
    epoch: int


def next_identity(folder: Path) -> Identity:
    """Return this start's identity and store it durably before anything is done under it."""
    path = folder / _FILE
    if path.exists():
        last = json.loads(path.read_text("utf-8"))
        identity = Identity(last["gateway_id"], last["epoch"] + 1)
    else:
        identity = Identity(f"gw_{uuid.uuid4().hex}", 1)
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"gateway_id": identity.gateway_id, "epoch": identity.epoch}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return identity
