"""Identifiers: UUIDv7 shown as `prefix_<32 hex>`, so they sort by the time they were made.

It leaves the choice of prefix to the room that owns the noun.
"""

import os
import time

_VERSION_AND_VARIANT = 7 << 76 | 2 << 62
_DICE = ~(0xF << 76 | 3 << 62) & (1 << 80) - 1


def new_id(prefix: str) -> str:
    """Return a fresh id, for example `run_0199…`. Source: RFC 9562 section 5.7."""
    dice = int.from_bytes(os.urandom(10), "big")
    return f"{prefix}_{time.time_ns() // 1_000_000 << 80 | dice & _DICE | _VERSION_AND_VARIANT:032x}"
