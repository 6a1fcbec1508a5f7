"""Identifiers: UUIDv7 shown as `prefix_<32 hex>`, so they sort by the time they were made.

It leaves the choice of prefix to the room that owns the noun.
"""

import os
import time


def new_id(prefix: str) -> str:
    """Return a fresh id, for example `run_0199…`. Source: RFC 9562 section 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(os.urandom(16), "big")
    value = (milliseconds << 80) | (value & ((1 << 80) - 1))
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return f"{prefix}_{value:032x}"
