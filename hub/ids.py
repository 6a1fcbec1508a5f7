"""Identifiers: UUIDv7 shown as `prefix_<32 hex>`, so they sort by the time they were made.

It leaves the choice of prefix to the room that owns the noun.
"""

import os
import time


def new_id(prefix: str) -> str:
    """Return a fresh id, for example `run_0199…`. Source: RFC 9562 section 5.7."""
    dice = os.urandom(10).hex()
    variant = "89ab"[int(dice[0], 16) & 3]
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}7{dice[1:4]}{variant}{dice[5:]}"
